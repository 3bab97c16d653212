"""Images built from a Dockerfile by buildah, in Docker's words."""
