"""A small process that outlives the engine: it answers containers' questions for names, in their own namespaces."""
