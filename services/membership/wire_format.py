"""What packets and streams of one cluster have in common: dialect, keys and label."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from services.membership.codec import MessageCodec
from services.membership.keyring import Keyring
from services.membership.label import label_header


class WireFormat:
    """How one cluster wraps what it sends.

    Args:
        codec: Dialect of the messages.
        keyring: Keys; empty for plain traffic.
        label: Cluster label, empty for none.
        nonce: Gives that many random bytes.
    """

    encryption_version: ClassVar = 1
    """Version 0, of peers whose PCur is 1, is read and not written."""

    def __init__(
        self,
        codec: MessageCodec,
        keyring: Keyring,
        label: str = "",
        *,
        nonce: Callable[[int], bytes],
    ) -> None:
        self._codec = codec
        self._keyring = keyring
        self._label = label.encode()
        self._header = label_header(self._label)
        self._nonce = nonce
