"""Generated from proto/shoal/v1; never edited."""
