"""What `shoal new` writes, run."""
