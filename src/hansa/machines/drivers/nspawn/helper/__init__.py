"""The part of the driver that needs root: standard library only, a program of its own."""
