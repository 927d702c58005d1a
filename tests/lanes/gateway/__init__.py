"""The gateway by what its users have: the library that pages use."""
