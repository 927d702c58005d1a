"""A join token: `shoal1.SHA256(authority).ID.SECRET`, one word that a person carries to a board.

The digest says which authority is believed before anything is; the id names the token in the store
of the controller, which keeps a hash of the secret and never the secret itself.
"""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

VERSION: Final = "shoal1"
_WORD: Final = re.compile(r"shoal1\.([0-9a-f]{64})\.([0-9a-z]{8})\.([0-9a-f]{32,128})")


class JoinTokenError(ValueError):
    """A word that is no join token; the message does not hold it."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a join token says.

    Attributes:
        authority: SHA-256 of the authority's certificate in DER, hexadecimal.
        id: 8 characters.
        secret: at least 32 hexadecimal digits.
    """

    authority: str
    id: str
    secret: str = field(repr=False)

    @property
    def word(self) -> str:
        """The token as it is carried."""
        return f"{VERSION}.{self.authority}.{self.id}.{self.secret}"


def parse_token(word: str) -> JoinToken:
    """Read a token.

    Raises:
        JoinTokenError: it is none.
    """
    found = _WORD.fullmatch(word.strip())
    if found is None:
        raise JoinTokenError(
            f"a word of {len(word.strip())} characters is no join token (shoal1.….….…): copy the whole "
            "line that `shoal token create` printed"
        )
    return JoinToken(*found.groups())


def secret_hash(secret: str) -> str:
    """Return what is stored of a secret: it is random and long, so one round of SHA-256 is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()
