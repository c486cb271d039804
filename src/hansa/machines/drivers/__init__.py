"""Drivers of machines: one module per provider, `base` for what they promise, `fake` for scale and faults."""
