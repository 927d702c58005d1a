"""What figures are, without a server."""
