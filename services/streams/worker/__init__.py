"""The stream worker: the process that carries the records of a node, and its parts."""
