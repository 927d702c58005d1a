"""Events of a cluster over MQTT, each handled once: dedupe, resume, and a broker that may be away.

Needs `aiomqtt`: install `shoal[events]`, or `shoal-server`, which has it. docs/mqtt.md has an example.
"""

from shoal.events.consumer import EventConsumer, EventsExtraError
from shoal.events.memory import EventMemory, FileEventMemory, WindowEventMemory
from shoal.events.received import ReceivedEvent
from shoal.events.refusal import SubscriptionRefusedError
from shoal.events.topics import UPDATES, events_of, states_of

__all__ = [
    "UPDATES",
    "EventConsumer",
    "EventMemory",
    "EventsExtraError",
    "FileEventMemory",
    "ReceivedEvent",
    "SubscriptionRefusedError",
    "WindowEventMemory",
    "events_of",
    "states_of",
]
