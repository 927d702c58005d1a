"""Serf's layer over the gossip: tags, intents, events, queries, coordinates, keys."""
