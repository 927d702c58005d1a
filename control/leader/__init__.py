"""The leader: decides with the control machine, commits, and lets the outbox leave."""
