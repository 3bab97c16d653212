"""Measurements against other engines: `make bench`."""
