"""What the machine of a node is and how it stands, read from its files."""
