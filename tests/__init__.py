"""Tests of Shoal, one folder per lane."""
