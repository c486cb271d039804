"""Connections to outside systems that several rooms share."""
