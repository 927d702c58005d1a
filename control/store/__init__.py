"""What the control plane remembers: rows, the store's interface, SQLite."""
