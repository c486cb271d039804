"""Batch drivers: what starts pilots at a site."""
