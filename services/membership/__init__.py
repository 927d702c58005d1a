"""Cluster membership: SWIM with Lifeguard on memberlist's and Serf's wire.

Everything in this package is pure but for `gossip` (the asyncio shell) and the two small
servers beside it. `docs/membership.md` has the map.
"""
