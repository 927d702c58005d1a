"""The interceptor that asks of each call whether its caller may make it, and what it counts."""
