"""Searches for settings: the space, the objective, and what came of the trials. No ray."""
