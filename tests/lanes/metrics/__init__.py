"""The lane of metrics: a real Prometheus over a real cluster."""
