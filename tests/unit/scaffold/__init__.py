"""What `shoal new` writes."""
