"""Populations whose estimates are known, estimated again: see ``README.md``."""
