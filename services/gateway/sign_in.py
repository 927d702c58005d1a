"""`/session`: a browser signs in with a token, asks which user it is, and signs out.

`POST` takes `{"token": "…"}` and sets the cookie, `GET` answers with the user, and `DELETE` ends the session. All
answer `{"user", "role", "namespace", "csrf"}`. The cookie is sent to this origin alone (SameSite=Strict), and to no
script; `POST` wants JSON, which no form of another page can send.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.gateway.door import COOKIE, Door, session_word
from services.gateway.refusal import json_error
from services.gateway.session_file import SessionFile, second_word
from services.gateway.user_file import GatewayUser, UserFileError
from shoal.errors import ShoalError

_BODY_BYTES_MAX: Final = 4096
_PATH: Final = "/session"
_JSON: Final = "application/json"

Answer = Callable[[Request], Awaitable[Response]]


def told(answer: Answer) -> Answer:
    """Return a function that answers a request, also where that fails."""

    async def answered(request: Request) -> Response:
        try:
            return await answer(request)
        except ShoalError as error:
            return json_error(error)
        except UserFileError as error:
            return json_error(ShoalError("USERS", str(error), code="UNAVAILABLE"))

    return answered


def address_of(request: Request) -> str:
    """Return the host from where a request comes."""
    return "" if request.client is None else request.client.host


class SignIn:
    """Serves sessions.

    Args:
        door: knows the users.
        sessions: keeps them.
        seconds: how long one lasts.
        secure: whether browsers may send the cookie over TLS alone.
    """

    def __init__(self, door: Door, sessions: SessionFile, seconds: float, *, secure: bool) -> None:
        self._door = door
        self._sessions = sessions
        self._seconds = seconds
        self._secure = secure

    def routes(self) -> list[Route]:
        """Return what is served."""
        return [
            Route(_PATH, told(self._begin), methods=["POST"]),
            Route(_PATH, told(self._show), methods=["GET"]),
            Route(_PATH, told(self._end), methods=["DELETE"]),
        ]

    async def _begin(self, request: Request) -> Response:
        token = await _token(request)
        user = self._door.caller(
            {"authorization": f"Bearer {token}"}, request.method, address_of(request), _PATH
        )
        word = await self._sessions.begin(user)
        answer = _described(user, word)
        answer.set_cookie(
            COOKIE,
            word,
            max_age=int(self._seconds),
            httponly=True,
            samesite="strict",
            secure=self._secure,
        )
        return answer

    async def _show(self, request: Request) -> Response:
        user = self._door.caller(request.headers, request.method, address_of(request), _PATH)
        word = session_word(request.headers)
        return _described(user, word if self._sessions.user(word) == user else "")

    async def _end(self, request: Request) -> Response:
        user = self._door.caller(request.headers, request.method, address_of(request), _PATH)
        await self._sessions.end(session_word(request.headers))
        answer = _described(user, "")
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=self._secure)
        return answer


def _described(user: GatewayUser, word: str) -> JSONResponse:
    return JSONResponse(
        {
            "user": user.name,
            "role": str(user.role),
            "namespace": user.namespace,
            "csrf": second_word(word) if word else "",
        }
    )


async def _token(request: Request) -> str:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        raise _malformed(f"the content type has to be {_JSON}")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _BODY_BYTES_MAX:
            raise _malformed(f"the body has more than {_BODY_BYTES_MAX} bytes")
    try:
        found: Any = json.loads(body)
        token = found["token"]
    except (ValueError, TypeError, KeyError, RecursionError):
        token = None
    if not isinstance(token, str):
        raise _malformed("the body is no JSON with a token")
    return token


def _malformed(why: str) -> ShoalError:
    return ShoalError("SESSION", f'{why}: send {{"token": "…"}} as JSON', code="INVALID_ARGUMENT")
