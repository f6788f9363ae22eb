"""Bags to predictions: networks, losses, checkpoints, training; torch, no ray."""
