"""How a newcomer joins a cluster with a token, before anything is believed but the token itself.

Rule: the secret of a token is told to no one but a controller that the token names.
1. `GET /v1/authorities`, over TLS that verifies nothing, brings certificates in PEM and, in the header
   `Shoal-Cluster`, the id of the cluster. An attacker in the middle may have written all of it.
2. Of those certificates only the one counts whose SHA-256 stands in the token; the others are dropped,
   since one that was slipped in beside it would be believed as well.
3. `POST /v1/join` goes over a second connection, which believes that one certificate alone and expects the
   name of a controller, `controller.CLUSTER.shoal`. The answer brings the newcomer's certificate and
   what else the cluster trusts.

Why the id is checked to be letters and digits: a node called `controller` proves
`controller.node.CLUSTER.shoal`, which an id of `node.CLUSTER` would make the expected name.

Times: certificates of ours begin in 1970, so a board whose clock stands there joins. A clock ahead of the
end of a certificate cannot be told from a certificate that is over; the message therefore compares it with
the controller's `Date` header. Nothing was asked of the token by then, so it is still good.

Sources: RFC 9525 (names), RFC 5280 section 4.1.2.5 (times), k3s and kubeadm (tokens with a hash of the
authority).
"""

import base64
import binascii
import datetime as dt
import email.utils
import hashlib
import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from shoal.address import check_address
from shoal.credentials import Credentials, CredentialsError, make_credentials
from shoal.identity import Role, dns_name
from shoal.join_token import JoinToken
from shoal.session.trust import Trust
from shoal.signing_request import new_key, signing_request

AUTHORITIES_PATH: Final = "/v1/authorities"
JOIN_PATH: Final = "/v1/join"
CLUSTER_HEADER: Final = "Shoal-Cluster"
BODY_BYTES_MAX: Final = 1 << 20
"""Largest answer that is read."""
_CLOCK_DIFFERS: Final = dt.timedelta(hours=1)
_CERTIFICATE_OVER: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_CERTIFICATE_EARLY: Final = 9  # X509_V_ERR_CERT_NOT_YET_VALID
_WRONG_NAME: Final = 62  # X509_V_ERR_HOSTNAME_MISMATCH
_TOKEN_REFUSED: Final = frozenset({400, 401, 403, 404, 409, 410})


class JoiningError(Exception):
    """A join that failed; the message has the remedy and never the token.

    Attributes:
        passing: whether it may go well a little later, with the same token.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class Joined:
    """What a newcomer gets.

    Attributes:
        credentials: its key, its certificate and the authorities that it believes.
        trust: what the cluster trusts; without ticket keys and gossip keys for a person.
    """

    credentials: Credentials
    trust: Trust


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def join(
    address: str,
    token: JoinToken,
    name: str,
    *,
    key: bytes = b"",
    role: Role | Literal["person"] | None = None,
    timeout_seconds: float = 15.0,
) -> Joined:
    """Join the cluster that a token names; blocks.

    Args:
        address: `host:port` of the controller for newcomers (--newcomers).
        token: what its operator handed over.
        name: the name that is wanted; of a node that of the node.
        key: private key (PEM) that the certificate is for, so that a join whose answer was lost can be
            repeated; a new one by default.
        role: the role that has to come of it, so that a token for another one is not used up; any by
            default, and any but that of a node for a person.
        timeout_seconds: longest silence of the controller.

    Raises:
        JoiningError: the controller cannot be reached, is not that of the token, or refuses.
        ShoalError: the address is malformed.
    """
    check_address(address)
    key = key or new_key()
    shown = _ask(address, _unverified(), None, timeout_seconds, "GET", AUTHORITIES_PATH)
    if shown.status != http.HTTPStatus.OK:
        raise JoiningError(
            f"what answers at {address} is not where newcomers join ({shown.status} to "
            f"{AUTHORITIES_PATH}): name the controller's --newcomers address, by default the port of "
            "its gRPC API and 2"
        )
    authority = _named_by(token, shown.body, address)
    cluster = shown.headers.get(CLUSTER_HEADER.lower(), "")
    if not (cluster.isascii() and cluster.isalnum()):
        raise JoiningError(f"what answers at {address} names no cluster: is it a controller?")
    expected = dns_name(cluster, Role.CONTROLLER)
    wanted = {
        "token": token.word,
        "name": name,
        "request": signing_request(key, name).decode(),
        **({} if role is None else {"role": str(role)}),
    }
    try:
        said = _ask(
            address,
            _believing(authority),
            expected,
            timeout_seconds,
            "POST",
            JOIN_PATH,
            json.dumps(wanted).encode(),
        )
    except ssl.SSLCertVerificationError as error:
        raise JoiningError(_unbelieved(error, address, expected, shown.headers)) from error
    if said.status != http.HTTPStatus.OK:
        raise JoiningError(
            f"the controller at {address} refuses: {_reason(said)}",
            passing=said.status not in _TOKEN_REFUSED,
        )
    return _joined(said.body, key, cluster, address)


def _named_by(token: JoinToken, bundle: bytes, address: str) -> str:
    """Find the certificate, PEM, whose hash the token has."""
    try:
        found = x509.load_pem_x509_certificates(bundle)
    except ValueError as error:
        raise JoiningError(
            f"what answers at {address} shows no certificates ({error}): is it a controller?"
        ) from error
    for certificate in found:
        der = certificate.public_bytes(serialization.Encoding.DER)
        if hashlib.sha256(der).hexdigest() == token.authority:
            return certificate.public_bytes(serialization.Encoding.PEM).decode()
    raise JoiningError(
        f"what answers at {address} does not show the authority of the token "
        f"({token.authority[:12]}…): either someone is in between, or the token is of another cluster, or "
        "its authority was replaced. The token was not sent; compare the address with the "
        "controller's, and make a new token there with `shoal token create`"
    )


def _unverified() -> ssl.SSLContext:
    """Believe anything: what comes is compared with the token."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _believing(authority: str) -> ssl.SSLContext:
    """Believe one authority alone, be it a root or not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=authority)
    return context


class _Connection(http.client.HTTPSConnection):
    """One that expects another name than that of the host that it dials."""

    def __init__(
        self, address: str, context: ssl.SSLContext, expected: str | None, timeout: float
    ) -> None:
        host, _, port = address.rpartition(":")
        super().__init__(host.strip("[]"), int(port), timeout=timeout)
        self._trusting = context
        self._expected = expected

    def connect(self) -> None:
        """Dial, and shake hands."""
        http.client.HTTPConnection.connect(self)
        self.sock = self._trusting.wrap_socket(self.sock, server_hostname=self._expected)


def _ask(
    address: str,
    context: ssl.SSLContext,
    expected: str | None,
    timeout_seconds: float,
    method: str,
    path: str,
    body: bytes | None = None,
) -> _Answer:
    connection = _Connection(address, context, expected, timeout_seconds)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = response.read(BODY_BYTES_MAX + 1)
        headers = {name.lower(): value for name, value in response.getheaders()}
    except ssl.SSLCertVerificationError:
        raise
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:  # the latter before Python 3.11.3
        raise JoiningError(
            f"what answers at {address} hung up before it proved anything: a controller does so while as many "
            "newcomers are there as it takes, so try again in a moment; or this is no port of --newcomers",
            passing=True,
        ) from error
    except ssl.SSLError as error:
        raise JoiningError(
            f"what answers at {address} does not speak TLS as a controller does to newcomers "
            f"({error.reason or error}): name its --newcomers address, by default the port of its gRPC "
            "API and 2; a controller with --insecure has none"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise JoiningError(
            f"no controller answers newcomers at {address} ({why}): start it, or name another address "
            "with --controller, or with --newcomers where it is not two ports above that; a controller "
            "with --insecure has none",
            passing=True,
        ) from error
    finally:
        connection.close()
    if len(data) > BODY_BYTES_MAX:
        raise JoiningError(f"the answer of {address} has over {BODY_BYTES_MAX} bytes")
    return _Answer(response.status, headers, data)


def _unbelieved(
    error: ssl.SSLCertVerificationError, address: str, expected: str, headers: Mapping[str, str]
) -> str:
    """Say why what answers is not believed to be the controller."""
    not_sent = "The token was not sent"
    if error.verify_code in {_CERTIFICATE_OVER, _CERTIFICATE_EARLY}:
        here = dt.datetime.now(dt.UTC)
        there = _date(headers.get("date", ""))
        if there is not None and abs(here - there) > _CLOCK_DIFFERS:
            return (
                f"the clock of this machine says {here:%Y-%m-%d %H:%M} UTC, at which the certificate of the "
                f"controller at {address} is not good; the controller's says {there:%Y-%m-%d %H:%M}: set "
                f"the clock, and try again. {not_sent}"
            )
        return (
            f"the certificate of the controller at {address} is not good at {here:%Y-%m-%d %H:%M} UTC, "
            f"which is what this machine's clock says: set the clock if it is wrong, or else restart the "
            f"controller, which renews it. {not_sent}"
        )
    if error.verify_code == _WRONG_NAME:
        return (
            f"what answers at {address} proves to be of the cluster, and not its controller "
            f"({expected}): correct the address. {not_sent}"
        )
    return (
        f"what answers at {address} cannot prove that it is the controller of the token's cluster "
        f"({error.verify_message}): someone may be in between. {not_sent}"
    )


def _date(text: str) -> dt.datetime | None:
    try:
        found = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=dt.UTC)


def _reason(said: _Answer) -> str:
    """Read the sentence of a refusal, `{"message": …}`."""
    try:
        found: Any = json.loads(said.body)
        return str(found["message"])
    except (ValueError, KeyError, TypeError):
        return f"{said.status} {said.body[:200].decode(errors='replace')}".strip()


def _joined(body: bytes, key: bytes, cluster: str, address: str) -> Joined:
    """Read `{certificate, authorities, trust: {ticket_keys, revoked, gossip_keys}}`."""
    try:
        said: Any = json.loads(body)
        trust: Any = said.get("trust") or {}
        authorities = str(said["authorities"]).encode()
        credentials = make_credentials(key, str(said["certificate"]).encode(), authorities)
        believed = Trust(
            authorities,
            tuple(_bytes(word) for word in trust.get("ticket_keys", ())),
            tuple(str(serial) for serial in trust.get("revoked", ())),
            tuple(_bytes(word) for word in trust.get("gossip_keys", ())),
        )
        x509.load_pem_x509_certificates(authorities)
        own = _public(x509.load_pem_x509_certificate(credentials.certificate).public_key())
        fits = own == _public(serialization.load_pem_private_key(key, None).public_key())
    except (ValueError, KeyError, TypeError, AttributeError, CredentialsError) as error:
        raise JoiningError(
            f"the answer of the controller at {address} cannot be read ({error}); is its version the "
            "same as this one's?"
        ) from error
    if not fits or credentials.identity.cluster != cluster:
        raise JoiningError(
            f"the controller at {address} answered with a certificate for another key or cluster "
            f"({credentials.identity.uri}); is its version the same as this one's?"
        )
    return Joined(credentials, believed)


def _public(key: Any) -> bytes:
    return cast(
        "bytes",
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )


def _bytes(word: object) -> bytes:
    try:
        return base64.b64decode(str(word), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{error} in a key") from error
