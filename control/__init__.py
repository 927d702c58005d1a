"""Control plane: accept pipelines, place their jobs, remember what happened."""
