"""What a broker takes, as its CONNACK or an earlier refusal of it says, or as is known of its kind.

Sources: MQTT 5.0 (OASIS), sections 3.2.2.3 (CONNACK properties) and 2.4 (reason codes); "AWS IoT Core endpoints and
quotas" in Amazon's General Reference: a payload of 128 KiB, 100 publishes and 512 KiB a second for each connection,
beyond which there is no acknowledgement; 100 messages in flight, no QoS 2, topics of at most 256 bytes and 7 slashes,
client ids of at most 128 bytes. Our topics are too short to break the last two (`tests/unit/events/test_terms.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.events.broker_url import AWS_IOT

EVENT_BYTES_MAX: Final = 256 * 1024
"""Most that an event has, whatever the broker would take; a larger one is cut."""
RETAIN_NOT_SUPPORTED: Final = 0x9A
QOS_NOT_SUPPORTED: Final = 0x9B
PACKET_TOO_LARGE: Final = 0x95
NOT_AUTHORIZED: Final = 0x87
QUOTA_EXCEEDED: Final = 0x97
NEVER: Final = frozenset({0x90, 0x99})
"""Topic name invalid, payload format invalid: another try says the same."""
_IN_FLIGHT: Final = 20
_FIXED_BYTES: Final = 5 + 2 + 2 + 5
"""Type and length, length of the topic, packet identifier, length of the properties."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Bytes of a packet, whether messages may be retained, and how surely they are sent.

    `in_flight` is how many messages may wait for their acknowledgement, `payload_max` how many bytes an event may have
    in a packet of whatever size, `messages_a_second` and `bytes_a_second` how fast they may come; 0 for no bound.
    """

    packet_bytes: int = 0
    retain: bool = True
    qos: int = 1
    in_flight: int = _IN_FLIGHT
    payload_max: int = EVENT_BYTES_MAX
    messages_a_second: float = 0
    bytes_a_second: float = 0

    def payload_bytes(self, topics: Sequence[str], property_bytes: int) -> int:
        """How many bytes a message may have on the longest of these topics."""
        if not self.packet_bytes:
            return self.payload_max
        around = _FIXED_BYTES + property_bytes + max(len(topic.encode()) for topic in topics)
        return max(0, min(self.payload_max, self.packet_bytes - around))

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
_AWS_IOT_TERMS: Final = Terms(
    payload_max=128 * 1024,
    # A tenth less than it allows, since a second of ours is not one of its seconds.
    messages_a_second=90,
    bytes_a_second=460 * 1024,
)


def terms_of(limits: str) -> Terms:
    """Return what is known of brokers with these limits of `BrokerAddress` before they say anything."""
    return _AWS_IOT_TERMS if limits == AWS_IOT else UNKNOWN
