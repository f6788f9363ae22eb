"""Attention maps: what a network looked at on a slide, as scores, pictures and regions."""
