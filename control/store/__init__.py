"""What the control plane remembers: the interface of the store, SQLite."""
