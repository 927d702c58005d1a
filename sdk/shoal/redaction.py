"""Text that leaves a process, without the secrets that stand in its addresses.

Rule: what people may read (reasons, progress, events, logs, answers of the controller) never holds the
password of an address or the value of a query that grants something. Addresses come in foreign text
(an installer's words, an exception, a program's last words), so it is text that is redacted, not
addresses. Example: `http://user:s3cr3t@host/x?X-Amz-Signature=9f&part=2` becomes
`http://user:***@host/x?X-Amz-Signature=***&part=2`. What is no secret stays, since a reason has
to name its thing. Sources: RFC 3986 section 3.2.1; the queries of presigned addresses of S3, Azure
and Google. Each pattern begins at a fixed sign and stops at the next, so that it costs no more than
the text's length.
"""

import re

HIDDEN = "***"

_USERINFO = re.compile(r"(?<=://)([^\s/?#\"<>\\]+)@")
# A password in which `/`, `?` or `#` was not escaped; 8080/ is a port.
_UNESCAPED = re.compile(
    r"(?<=://)([^\s/?#@:\"<>\\]{0,60}:)(?!\d{1,5}(?:[/?#]|$)|\*\*\*@)[^\s@\"<>\\]{0,200}@"
)
_LONGEST_USER = 20
"""A longer one is a token, as in `https://TOKEN:x-oauth-basic@host`."""
_USERS_ALONE = ("ssh://", "git://")
"""In front of a user without a password, which is a name such as `git`; elsewhere it is a token."""

_GRANTS = r"auth|code|credential|jwt|key|passw|pwd|secret|session|sig|token"
_QUERY = re.compile(
    rf"([?&;](?=[^=&\s]{{0,40}}(?:{_GRANTS}))[^=&\s]{{1,60}}=)[^&\s\"'<>#\\]+", re.IGNORECASE
)
_HEADER = re.compile(
    r"(authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:basic|bearer|token)\s)[^\s\"'<>\\,]+",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """Return `text` with `***` in place of secrets in its addresses; twice is the same as once."""
    if "@" in text:
        text = _USERINFO.sub(_user, text)
        text = _UNESCAPED.sub(rf"\1{HIDDEN}@", text)
    if "=" in text:
        text = _QUERY.sub(rf"\1{HIDDEN}", text)
    return _HEADER.sub(rf"\1{HIDDEN}", text)


def _user(found: re.Match[str]) -> str:
    user, colon, _ = found[1].partition(":")
    if not colon:
        before = found.string[max(0, found.start() - 6) : found.start()]
        return f"{user if before.endswith(_USERS_ALONE) else HIDDEN}@"
    shown = user if len(user) <= _LONGEST_USER else HIDDEN
    return f"{shown}:{HIDDEN}@"
