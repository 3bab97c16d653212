"""Holdfast: a container engine for the Docker Engine API whose heart is volumes."""

__version__ = "0.1.0"
