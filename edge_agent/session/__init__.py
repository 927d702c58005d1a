"""The session with a controller: what is decided, and the link that carries it."""
