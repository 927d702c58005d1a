"""The client's end of streams: local jobs, records sent by hand, recordings."""
