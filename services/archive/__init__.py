"""Archive: object stores, manifests and uploads."""
