"""How much is known of the controller that was followed last, as the journal has it: one line of JSON."""

import json
from dataclasses import astuple

from shoal.model import Followed


def followed_text(followed: Followed) -> str:
    """Write it."""
    return json.dumps(astuple(followed))


def read_followed(text: str) -> Followed | None:
    """Read what `followed_text` wrote; None for no text."""
    return Followed(*json.loads(text)) if text else None
