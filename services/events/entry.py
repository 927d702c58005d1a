"""One fact that has to leave, as a CloudEvent on MQTT.

Sources: CloudEvents 1.0.2 (attributes, JSON format), its MQTT protocol binding (content type), its
sequence extension.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
TOPIC_ROOT = "shoal"


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the outbox; `data_json` is the event's data as JSON, `id` never changes."""

    sequence: int
    id: str
    type: str
    namespace: str
    subject: str
    time: datetime
    data_json: str = "{}"

    @property
    def events_topic(self) -> str:
        """Topic that carries every event of the subject, not retained."""
        return f"{TOPIC_ROOT}/{self.namespace}/{self.subject}/events"

    @property
    def state_topic(self) -> str:
        """Topic that retains the subject's last event."""
        return f"{TOPIC_ROOT}/{self.namespace}/{self.subject}/state"


def envelope(entry: Entry) -> bytes:
    """Return the CloudEvent as JSON in UTF-8; the same entry has the same bytes every time.

    Data that is not JSON travels as text: an event that cannot leave would hold up those behind it.
    """
    try:
        data = json.loads(entry.data_json)
    except (ValueError, RecursionError):
        data = entry.data_json
    event = {
        "specversion": "1.0",
        "id": entry.id,
        "source": f"/{TOPIC_ROOT}/{entry.namespace}",
        "type": entry.type,
        "subject": entry.subject,
        "time": entry.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "sequence": str(entry.sequence),
        "data": data,
    }
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
