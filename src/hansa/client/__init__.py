"""The Python API over HTTP: ``from hansa import Hansa, AsyncHansa``."""
