"""The page of a run: cohort, metrics, curves, errors, provenance, in one HTML file."""
