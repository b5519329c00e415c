"""Experiments over many models and datasets, their statistics and tables."""
