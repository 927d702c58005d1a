"""Figures on their page, under bad scrapers and proofs."""
