"""What job code is written with: `shoal.job`."""
