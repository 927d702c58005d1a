"""Which caller may call what: one table, one decision, and the interceptor that asks it of each call."""
