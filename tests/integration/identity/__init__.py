"""Identity, over real processes and real TLS."""
