"""The composition root: configuration becomes services, services get a socket, and all of it ends in order."""
