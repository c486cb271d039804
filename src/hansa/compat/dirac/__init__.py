"""DIRAC's job descriptions and words, translated into Hansa's. Pure; the commands are in :mod:`hansa.cli.dirac`."""
