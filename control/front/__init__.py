"""The front: API, sessions of agents, and what was committed, as it is shown."""
