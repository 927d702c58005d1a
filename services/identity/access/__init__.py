"""Which caller may call what: one table, and one decision that controllers and gateways share."""
