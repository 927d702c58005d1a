"""The users of a gateway: names with roles, and the hashes of their tokens, in a file of the gateway's state.

Rule: a token is 256 random bits, so its SHA-256 gives nothing away, and a reader of the file can sign in as none of
them. A name that is allowed again has a new token and a new role; its old token, and all sessions that began with it,
are over with the next request. The file is read anew when it has changed, so that a command needs no word with the
gateway that runs.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

from shoal.credentials import write_private
from shoal.identity import Role
from shoal.names import check_id

USERS_NAME: Final = "users.json"
USERS_MAX: Final = 10_000
WORD_PREFIX: Final = "shoalgw1."
USER_ROLES: Final = (Role.VIEWER, Role.SUBMITTER)
"""What a user may be: the controller lets a gateway do no more than a submitter."""


class UserFileError(Exception):
    """The file cannot be used, or names no such user; the message says the remedy."""


@dataclass(frozen=True, slots=True)
class GatewayUser:
    """A person or program that may use a gateway.

    Attributes:
        name: what the controller has as the user; an id.
        role: viewer or submitter.
        namespace: the only one in which it has its role; empty for all of them.
        token_hash: SHA-256 (hex) of its token; empty for a caller that has not signed in.

    Raises:
        ValueError: it cannot be.
    """

    name: str
    role: Role
    namespace: str = ""
    token_hash: str = ""

    def __post_init__(self) -> None:
        check_id("user", self.name)
        if self.namespace:
            check_id("namespace", self.namespace)
        if self.role not in USER_ROLES:
            raise ValueError(f"a user of a gateway is a viewer or a submitter, not a {self.role}")


def hash_of(token: str) -> str:
    """Return what the file has of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


class UserFile:
    """The file; every read sees what was written last.

    Args:
        path: where it is; none is a file without users.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._by_name: Mapping[str, GatewayUser] = MappingProxyType({})
        self._by_hash: Mapping[str, GatewayUser] = MappingProxyType({})

    def users(self) -> Sequence[GatewayUser]:
        """Return all, by name.

        Raises:
            UserFileError: the file cannot be read.
        """
        self._refresh()
        return [self._by_name[name] for name in sorted(self._by_name)]

    def of_token(self, token: str) -> GatewayUser | None:
        """Find the user of a token.

        Raises:
            UserFileError: the file cannot be read.
        """
        self._refresh()
        return self._by_hash.get(hash_of(token))

    def of_name(self, name: str) -> GatewayUser | None:
        """Find the user of a name.

        Raises:
            UserFileError: the file cannot be read.
        """
        self._refresh()
        return self._by_name.get(name)

    def allow(self, user: GatewayUser, token: str) -> None:
        """Let a user in with a token from now on, instead of one of that name.

        Raises:
            UserFileError: the file cannot be written, or has too many users.
        """
        self._refresh()
        kept = {**self._by_name, user.name: replace(user, token_hash=hash_of(token))}
        if len(kept) > USERS_MAX:
            raise UserFileError(
                f"{self._path} has {USERS_MAX} users, which is the most: forbid one first"
            )
        self._write(kept)

    def forbid(self, name: str) -> None:
        """Let a user in no more.

        Raises:
            UserFileError: there is no such user, or the file cannot be written.
        """
        self._refresh()
        if name not in self._by_name:
            raise UserFileError(
                f"{self._path} has no user {name!r}; `shoal gateway users` lists those it has"
            )
        self._write({one: user for one, user in self._by_name.items() if one != name})

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
            mark = (found.st_mtime_ns, found.st_size, found.st_ino)
            if mark == self._seen:
                return
            users = [_user(one) for one in json.loads(self._path.read_bytes())["users"]]
        except FileNotFoundError:
            users, mark = [], (0, 0, 0)
        except OSError as error:
            raise UserFileError(f"{self._path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserFileError(
                f"{self._path} is not a file of users ({error}): restore it, or remove it and allow "
                "each user again with `shoal gateway allow`"
            ) from error
        self._by_name = MappingProxyType({user.name: user for user in users})
        self._by_hash = MappingProxyType({user.token_hash: user for user in users})
        self._seen = mark

    def _write(self, users: Mapping[str, GatewayUser]) -> None:
        rows = [
            {
                "name": user.name,
                "role": str(user.role),
                "namespace": user.namespace,
                "token_sha256": user.token_hash,
            }
            for _, user in sorted(users.items())
        ]
        write_whole(self._path, {"users": rows})


def write_whole(path: Path, value: object) -> None:
    """Write a JSON file that is its user's alone, whole or not at all.

    Raises:
        UserFileError: it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, json.dumps(value, indent=1).encode())
    except OSError as error:
        raise UserFileError(f"{path} cannot be written: {error.strerror}") from error


def _user(row: object) -> GatewayUser:
    found = cast("dict[str, Any]", row)
    token_hash = found["token_sha256"]
    if not isinstance(token_hash, str) or len(token_hash) != 64:
        raise ValueError(f"user {found['name']!r} has no hash of a token")
    return GatewayUser(
        str(found["name"]), Role(found["role"]), str(found.get("namespace", "")), token_hash
    )
