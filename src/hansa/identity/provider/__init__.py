"""Hansa as an OpenID provider."""
