"""Counting baselines: what a model must beat to be worth serving."""
