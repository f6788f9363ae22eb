"""Patches -> vectors, and where they are kept. Only encoders know torch."""
