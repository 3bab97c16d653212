"""Volumes: the heart. What a mount request means, who holds which volume, where its data lives and how it is filled."""
