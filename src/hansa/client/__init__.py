"""The Python API over HTTP."""
