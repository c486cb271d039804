"""Somebody else's commands and wire formats, translated into calls on our own services. No state of its own."""
