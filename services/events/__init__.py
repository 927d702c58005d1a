"""Events: the outbox, the CloudEvents envelope and the MQTT publisher."""
