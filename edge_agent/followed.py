"""How much is known of the controller that was followed last, as the journal has it: one line of JSON."""

import json

from shoal.model import Followed


def followed_text(followed: Followed) -> str:
    """Write it."""
    return json.dumps([followed.cluster_id, followed.term, followed.start_id, followed.commit])


def read_followed(text: str) -> Followed | None:
    """Read what `followed_text` wrote; None for no text."""
    if not text:
        return None
    cluster_id, term, start_id, commit = json.loads(text)
    return Followed(str(cluster_id), int(term), str(start_id), int(commit))
