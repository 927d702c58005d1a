"""What a controller, its agents and their stream workers say to each other: one noun each.

Plain values; `shoal.wire` has the codec of each. A noun is written, kept in memory, sent and read as
the same class on every side, so that a new field of it is a change of the contract, of the noun and
of the codec, and of nothing between.
"""
