"""The Docker Engine API over HTTP/1.1: connections, routes by noun, the status table, streams taken over by clients."""
