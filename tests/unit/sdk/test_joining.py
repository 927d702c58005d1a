"""Joining, against an HTTPS server with certificates of real authorities, and against who is in the middle."""

import contextlib
import datetime as dt
import json
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.identity.authority import Authority, make_authority
from shoal.credentials import make_credentials
from shoal.identity import Identity, Role
from shoal.join_token import JoinToken
from shoal.joining import AUTHORITIES_PATH, CLUSTER_HEADER, JOIN_PATH, JoiningError, join
from shoal.signing_request import new_key, signing_request

NOW = dt.datetime.now(dt.UTC)
CONTROLLER = Identity("c1", Role.CONTROLLER, "main")


@dataclass
class Desk:
    """Where newcomers join: what it shows, what it proves, and what it was told.

    `answer` returns the status and the body for a request to join.
    """

    authority: Authority
    bundle: bytes
    cluster: str = "c1"
    proves: Identity = CONTROLLER
    signer: Authority | None = None
    issued_at: dt.datetime = NOW
    answer: Callable[[Any], tuple[int, dict[str, object]]] | None = None
    date: str = ""
    heard: list[Any] = field(default_factory=list[Any])

    def joined(self, wanted: Any) -> tuple[int, dict[str, object]]:
        identity = Identity("c1", Role.NODE, wanted["name"])
        certificate = self.authority.issue(wanted["request"].encode(), identity, now=NOW)
        trust = {"ticket_keys": ["A" * 43 + "="], "revoked": ["1f"], "gossip_keys": []}
        return 200, {
            "certificate": certificate.decode(),
            "authorities": self.authority.certificate.decode(),
            "cluster": "c1",
            "namespace": "",
            "trust": trust,
        }


@contextlib.contextmanager
def standing(desk: Desk, folder: Path, *, plain: bool = False) -> Iterator[str]:
    class _Request(BaseHTTPRequestHandler):
        def _say(self, status: int, body: bytes) -> None:
            self.send_response_only(status)
            self.send_header("Date", desk.date or self.date_time_string())
            self.send_header(CLUSTER_HEADER, desk.cluster)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            known = self.path == AUTHORITIES_PATH
            self._say(200 if known else 404, desk.bundle if known else b"")

        def do_POST(self) -> None:
            assert self.path == JOIN_PATH
            wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            desk.heard.append(wanted)
            status, body = (desk.answer or desk.joined)(wanted)
            self._say(status, json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), _Request)
    if not plain:
        key = new_key()
        signer = desk.signer or desk.authority
        certificate = signer.issue(signing_request(key, "any"), desk.proves, now=desk.issued_at)
        path = folder / "served.pem"
        path.write_bytes(key + certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        server.handle_error = lambda *_: None  # type: ignore[method-assign] # handshakes fail here
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def authority() -> Authority:
    return make_authority("c1", now=NOW)


def token_of(authority: Authority) -> JoinToken:
    return JoinToken(authority.fingerprint, "abcd1234", secrets.token_hex(16))


def refused(desk: Desk, token: JoinToken, folder: Path, *, plain: bool = False) -> JoiningError:
    with standing(desk, folder, plain=plain) as address, pytest.raises(JoiningError) as error:
        join(address, token, "cam-1", timeout_seconds=20)
    assert token.secret not in str(error.value)
    return error.value


def test_a_newcomer_gets_what_it_proves_and_what_it_believes(
    authority: Authority, tmp_path: Path
) -> None:
    desk = Desk(authority, authority.certificate)
    token, key = token_of(authority), new_key()
    with standing(desk, tmp_path) as address:
        joined = join(address, token, "cam-1", key=key)
    (heard,) = desk.heard
    assert (heard["token"], heard["name"]) == (token.word, "cam-1")
    assert joined.credentials.identity == Identity("c1", Role.NODE, "cam-1")
    assert joined.credentials.key == key
    assert joined.credentials.authorities == authority.certificate
    assert joined.trust.revoked == ("1f",)
    assert joined.trust.ticket_keys == (bytes(32),)


def test_the_secret_goes_to_no_other_authority(authority: Authority, tmp_path: Path) -> None:
    other = make_authority("c1", now=NOW)
    desk = Desk(other, other.certificate)
    error = refused(desk, token_of(authority), tmp_path)
    assert "does not show the authority of the token" in str(error)
    assert not error.passing
    assert not desk.heard


def test_an_authority_that_was_slipped_in_beside_the_right_one_is_not_believed(
    authority: Authority, tmp_path: Path
) -> None:
    other = make_authority("c1", now=NOW)
    for bundle in (
        authority.certificate + other.certificate,
        other.certificate + authority.certificate,
    ):
        desk = Desk(other, bundle)
        error = refused(desk, token_of(authority), tmp_path)
        assert "cannot prove that it is the controller" in str(error)
        assert not desk.heard


@pytest.mark.parametrize(
    ("cluster", "says"),
    [("c1", "not its controller"), ("node.c1", "names no cluster"), ("", "names no cluster")],
)
def test_a_node_of_the_cluster_is_not_taken_for_its_controller(
    authority: Authority, tmp_path: Path, cluster: str, says: str
) -> None:
    node = Identity("c1", Role.NODE, "controller")
    desk = Desk(authority, authority.certificate, cluster=cluster, proves=node)
    assert says in str(refused(desk, token_of(authority), tmp_path))
    assert not desk.heard


@pytest.mark.parametrize(
    ("date", "says"),
    [
        ("", "set the clock if it is wrong"),
        ("Fri, 29 Nov 2019 00:00:00 GMT", "the controller's says 2019-11-29 00:00"),
        ("yesterday", "set the clock if it is wrong"),
    ],
)
def test_a_clock_behind_the_end_of_the_certificate_is_told(
    authority: Authority, tmp_path: Path, date: str, says: str
) -> None:
    """The clock of this process is right, so the certificate is one that was over before."""
    issued_at = NOW - dt.timedelta(days=800)
    desk = Desk(authority, authority.certificate, issued_at=issued_at, date=date)
    assert says in str(refused(desk, token_of(authority), tmp_path))
    assert not desk.heard


@pytest.mark.parametrize(("status", "passing"), [(403, False), (429, True), (503, True)])
def test_a_refusal_says_the_controllers_sentence(
    authority: Authority, tmp_path: Path, *, status: int, passing: bool
) -> None:
    def answer(_wanted: object) -> tuple[int, dict[str, object]]:
        return status, {"reason": "TOKEN", "message": "the token abcd1234 is over"}

    desk = Desk(authority, authority.certificate, answer=answer)
    error = refused(desk, token_of(authority), tmp_path)
    assert "the token abcd1234 is over" in str(error)
    assert error.passing is passing


@pytest.mark.parametrize(
    "change",
    [
        {"certificate": ""},
        {"certificate": "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----"},
        {"authorities": ""},
        {"trust": {"ticket_keys": ["?"]}},
        {"trust": 7},
    ],
)
def test_an_answer_that_cannot_be_used_is_told(
    authority: Authority, tmp_path: Path, change: dict[str, object]
) -> None:
    desk = Desk(authority, authority.certificate)

    def answer(wanted: Any) -> tuple[int, dict[str, object]]:
        status, body = desk.joined(wanted)
        return status, {**body, **change}

    desk.answer = answer
    assert "cannot be read" in str(refused(desk, token_of(authority), tmp_path))


def test_a_certificate_for_another_key_is_refused(authority: Authority, tmp_path: Path) -> None:
    desk = Desk(authority, authority.certificate)

    def answer(wanted: Any) -> tuple[int, dict[str, object]]:
        return desk.joined({**wanted, "request": signing_request(new_key(), "x").decode()})

    desk.answer = answer
    assert "another key" in str(refused(desk, token_of(authority), tmp_path))


def test_a_port_that_speaks_no_tls_and_one_where_nobody_is_are_told(
    authority: Authority, tmp_path: Path
) -> None:
    desk = Desk(authority, authority.certificate)
    error = refused(desk, token_of(authority), tmp_path, plain=True)
    assert "does not speak TLS" in str(error)
    with standing(desk, tmp_path) as address:
        pass
    with pytest.raises(JoiningError, match="no controller answers newcomers") as gone:
        join(address, token_of(authority), "cam-1")
    assert gone.value.passing


def test_what_a_certificate_says_is_what_the_newcomer_is(
    authority: Authority, tmp_path: Path
) -> None:
    """A person's name may be in a namespace, which the token says and not the person."""
    desk = Desk(authority, authority.certificate)
    ann = Identity("c1", Role.VIEWER, "ann", "lab")

    def answer(wanted: Any) -> tuple[int, dict[str, object]]:
        _, body = desk.joined(wanted)
        certificate = authority.issue(wanted["request"].encode(), ann, now=NOW)
        return 200, {**body, "certificate": certificate.decode()}

    desk.answer = answer
    with standing(desk, tmp_path) as address:
        joined = join(address, token_of(authority), "ann")
    assert joined.credentials == make_credentials(
        joined.credentials.key, joined.credentials.certificate, authority.certificate
    )
    assert joined.credentials.identity == ann


def test_a_port_that_hangs_up_in_the_handshake_is_tried_again(authority: Authority) -> None:
    """As a controller does that has as many newcomers as it takes."""

    def hang_up() -> None:
        connection, _ = full.accept()
        connection.recv(10_000)  # what is left unread would be a reset
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as full:
        closing = threading.Thread(target=hang_up)
        closing.start()
        with pytest.raises(JoiningError) as error:
            join(f"127.0.0.1:{full.getsockname()[1]}", token_of(authority), "cam-1")
        closing.join()
    assert error.value.passing
    assert "hung up before it proved anything" in str(error.value)
