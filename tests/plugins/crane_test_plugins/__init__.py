"""Plug-ins as users write them, found by their dotted paths; tests put this folder on the path."""
