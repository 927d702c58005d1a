"""Integration tests of the kit: the servers that other tests trust."""
