"""A small process that outlives the engine: it answers containers' questions for names, and passes ports on."""
