"""What the builds of tests say that they speak, for messages that are written by hand."""

from shoal.protocol_version import LANES, SESSION
from shoal.wire.protocols import encode_protocols

SPOKEN_LANES = encode_protocols(LANES.said_by("0.0.0"))
SPOKEN_SESSIONS = encode_protocols(SESSION.said_by("0.0.0"))
