"""Tests in lanes of their own: each needs programs that the others do without."""
