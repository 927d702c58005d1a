"""The cases of jobs on boards: what the cluster does in the place of the systems that it replaces."""
