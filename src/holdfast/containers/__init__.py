"""The life of containers: the only room that joins volumes, images, runtime and network."""
