"""The whole mesh in one process, in virtual time, on links in memory."""
