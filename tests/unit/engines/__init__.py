"""Unit tests of hansa.engines."""
