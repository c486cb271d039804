"""Measurements beside the peers that the design's budgets name: ``python -m benchmarks``."""
