"""Traces: the way of a pipeline as spans, kept until they have left for a collector of OpenTelemetry."""
