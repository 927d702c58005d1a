"""The scheduler: a function from a snapshot and pending jobs to a plan that explains itself."""
