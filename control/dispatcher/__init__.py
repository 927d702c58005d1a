"""Dispatcher: one bidirectional session for each agent."""
