"""The tables of a study: labels, tasks, splits."""
