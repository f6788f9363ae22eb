"""Aggregators: one module each, found by its name (see `crane_ray.mil.aggregator`)."""
