"""API: pipelines and nodes over gRPC, for people and dashboards."""
