"""Validation of the methods on synthetic patients; each study writes its results beside it."""
