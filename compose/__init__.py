"""Ways to run many nodes on one machine."""
