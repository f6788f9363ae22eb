"""Synthetic slides and cohorts with known truth, and broken files, for tests and demos."""
