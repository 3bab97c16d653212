"""JSON shapes of the Docker Engine API: decode, encode, and the differences between its versions."""
