"""The gateway: the contract for browsers and curl, in front of a controller (docs/gateway.md)."""
