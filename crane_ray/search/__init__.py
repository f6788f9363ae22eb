"""Searches over training configs: the space, the objective, and what came of it."""
