"""Takes messages of queues and topics, and makes pipelines of them: `shoal intake`."""
