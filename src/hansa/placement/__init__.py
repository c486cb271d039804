"""Placement: where something runs, and why there. Pure but for its service."""
