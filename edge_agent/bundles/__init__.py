"""Bundles: fetched once, checked, and laid out exactly as their author had them."""
