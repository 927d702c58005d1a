"""Key rotation through the cluster: install, use, remove and list, as internal queries."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from services.membership.dialect import pack, unpack
from services.membership.fields import U16_MAX, fields, items, octets, text
from services.membership.keyring import Keyring
from services.membership.layout import FLAG, TEXT, FieldKind, MessageLayout
from services.membership.refusal import DropReason, RefusedError
from services.membership.serf.message import SerfType

PREFIX: Final = "_serf_"
PING: Final = "_serf_ping"
INSTALL: Final = "_serf_install-key"
USE: Final = "_serf_use-key"
REMOVE: Final = "_serf_remove-key"
LIST: Final = "_serf_list-keys"
KEY_QUERIES: Final = frozenset({INSTALL, USE, REMOVE, LIST})


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """What one member says about its keys; keys are base64."""

    ok: bool
    message: str = ""
    keys: tuple[str, ...] = ()
    primary: str = ""


_KEYS: Final = FieldKind(
    lambda value, name: tuple(text(key, "key") for key in items(value, U16_MAX, name)),
    lambda keys: list(keys) or None,
)
_ANSWER: Final = MessageLayout(
    KeyAnswer,
    ("Result", FLAG),
    ("Message", FieldKind(lambda value, name: text(value, name, 4096))),
    ("Keys", _KEYS),
    ("PrimaryKey", TEXT),
)


def encode_key_request(key: bytes) -> bytes:
    """Write the payload of an install, use or remove query."""
    return bytes((SerfType.KEY_REQUEST,)) + pack({"Key": key})


def encode_key_answer(answer: KeyAnswer, bytes_max: int) -> bytes:
    """Write a member's answer; where it would exceed `bytes_max`, with as many keys as fit."""
    data = _packed(answer)
    total = len(answer.keys)
    for count in range(total - 1, -1, -1):
        if len(data) <= bytes_max:
            break
        note = f"the first {count} of {total} keys; more do not fit an answer"
        data = _packed(replace(answer, keys=answer.keys[:count], message=note))
    return data


def _packed(answer: KeyAnswer) -> bytes:
    return bytes((SerfType.KEY_RESPONSE,)) + pack(_ANSWER.body(answer))


def decode_key_answer(payload: bytes) -> KeyAnswer:
    """Read a member's answer.

    Raises:
        RefusedError: Malformed.
    """
    if not payload or payload[0] != SerfType.KEY_RESPONSE:
        raise RefusedError(DropReason.MALFORMED, "answer is no key response")
    return _ANSWER.read(unpack(memoryview(payload)[1:]))


def answer_key_query(keyring: Keyring, name: str, payload: bytes) -> KeyAnswer | None:
    """Do what a key query asks; None if it is no key query."""
    if name == LIST:
        if not keyring.keys:
            return KeyAnswer(ok=False, message="No keys to list (encryption not enabled)")
        keys = tuple(base64.b64encode(key).decode() for key in keyring.keys)
        return KeyAnswer(ok=True, keys=keys, primary=keys[0])
    actions: Mapping[str, Callable[[bytes], None]] = {
        INSTALL: keyring.install,
        USE: keyring.use,
        REMOVE: keyring.remove,
    }
    action = actions.get(name)
    if action is None:
        return None
    if not keyring.keys:
        return KeyAnswer(ok=False, message="No keyring to modify (encryption not enabled)")
    try:
        if not payload or payload[0] != SerfType.KEY_REQUEST:
            raise RefusedError(DropReason.MALFORMED, "payload is no key request")
        (key,) = fields(unpack(memoryview(payload)[1:]), (b"Key",))
        action(octets(key, 64, "Key"))
    except (RefusedError, ValueError) as error:
        return KeyAnswer(ok=False, message=str(error))
    return KeyAnswer(ok=True)
