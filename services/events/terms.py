"""What a broker takes, as its CONNACK or an earlier refusal of it says.

Source: MQTT 5.0 (OASIS), sections 3.2.2.3 (CONNACK properties) and 2.4 (reason codes).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

EVENT_BYTES_MAX: Final = 256 * 1024
"""Most that an event has, whatever the broker would take; a larger one is cut."""
RETAIN_NOT_SUPPORTED: Final = 0x9A
QOS_NOT_SUPPORTED: Final = 0x9B
PACKET_TOO_LARGE: Final = 0x95
NEVER: Final = frozenset({0x90, 0x99})
"""Topic name invalid, payload format invalid: another try says the same."""
_IN_FLIGHT: Final = 20
_FIXED_BYTES: Final = 5 + 2 + 2 + 5
"""Type and length, length of the topic, packet identifier, length of the properties."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Bytes of a packet, whether messages may be retained, and how surely they are sent.

    `in_flight` is how many messages may wait for their acknowledgement.
    """

    packet_bytes: int = 0
    retain: bool = True
    qos: int = 1
    in_flight: int = _IN_FLIGHT

    def payload_bytes(self, topics: Sequence[str], property_bytes: int) -> int:
        """How many bytes a message may have on the longest of these topics."""
        if not self.packet_bytes:
            return EVENT_BYTES_MAX
        around = _FIXED_BYTES + property_bytes + max(len(topic.encode()) for topic in topics)
        return max(0, min(EVENT_BYTES_MAX, self.packet_bytes - around))

    def remarks(self) -> tuple[str, ...]:
        """What is not as it should be, for people."""
        found: list[str] = []
        if not self.retain:
            found.append("it retains no messages, so a client that comes later sees no states")
        if self.qos < 1:
            found.append("it acknowledges nothing (QoS 0), so events may be lost on their way")
        return tuple(found)


UNKNOWN: Final = Terms()
"""Of a broker that has said nothing yet."""
