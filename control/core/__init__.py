"""The pure core of the control plane: the control machine, its parts and records."""
