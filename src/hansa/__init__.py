"""Hansa: one front door to all the compute that a research community can reach."""
