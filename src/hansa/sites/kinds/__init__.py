"""Kinds of endpoints: what each needs to be told, and how it is looked at. Entry points of ``hansa.endpoints``."""
