"""The attempts of this node, from assignment to end: what is decided, and the shell that does it."""
