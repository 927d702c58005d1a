"""For job code: standard library only, Python 3.6 and later."""
