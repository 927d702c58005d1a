"""Sessions: one bidirectional stream for each agent."""
