"""Holdfast: a Docker-compatible container engine whose heart is volumes."""

__version__ = "0.1.0"
