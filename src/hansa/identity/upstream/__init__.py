"""Signing in through other issuers."""
