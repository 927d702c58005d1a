"""Whether a certificate was signed by an authority that is believed now.

A handshake asks that once. A connection that was made before an authority was removed goes on, so it is asked
again of each call: by the signature, since a certificate may say any issuer.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from services.identity.authority import Authority

CERTIFICATES_MAX: Final = 4096
"""Answers that are remembered."""


class Issuers:
    """Asks the authorities that are believed; remembers the answers until there are other ones.

    Args:
        authorities: returns those that are believed now; another sequence after each change.
    """

    def __init__(self, authorities: Callable[[], Sequence[Authority]]) -> None:
        self._authorities = authorities
        self._asked: Sequence[Authority] = ()
        self._certificates: Sequence[x509.Certificate] = ()
        self._answers: OrderedDict[bytes, bool] = OrderedDict()

    def signed(self, certificate: bytes) -> bool:
        """Whether one of them has signed a certificate (PEM)."""
        now = self._authorities()
        if now is not self._asked:
            self._asked = now
            self._certificates = [x509.load_pem_x509_certificate(one.certificate) for one in now]
            self._answers.clear()
        known = self._answers.get(certificate)
        if known is None:
            known = self._answers[certificate] = self._ask(certificate)
            if len(self._answers) > CERTIFICATES_MAX:
                self._answers.popitem(last=False)
        return known

    def _ask(self, certificate: bytes) -> bool:
        found = x509.load_pem_x509_certificate(certificate)
        for authority in self._certificates:
            try:
                found.verify_directly_issued_by(authority)
            except (ValueError, TypeError, InvalidSignature):
                continue
            return True
        return False
