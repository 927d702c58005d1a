"""Cluster membership: SWIM with Lifeguard on memberlist's and Serf's wire.

Everything in this package is pure but for the asyncio shells (`shell`, `serf.shell`,
`stream_transport`) and the two small servers beside them. `docs/membership.md` has the map.
"""
