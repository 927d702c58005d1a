"""A whole cluster as real processes: what people see, and what happens when parts of it die."""
