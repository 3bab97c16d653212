"""Plugins of Docker's first protocol: where they are found, how they are spoken to, what is done when one is silent."""
