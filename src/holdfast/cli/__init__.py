"""The `holdfast` command: Docker's words, streams and exit codes."""
