"""Proofs that follow from the workers' secret: tokens of forwarded requests, and capabilities of callback addresses.

Each is an HMAC-SHA256. Its key is derived from the secret and the purpose of the proof, so that no proof can stand for
another.
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

from streams.access.keys import Identity, Role

VALID_S = 30.0
"""Largest difference between the clocks of two workers plus the time of a request on its way."""
VERSION = "v2"
MIN_SECRET_BYTES = 32
PSEUDONYM_DIGITS = 12
"""Hexadecimal digits of a pseudonym. An order has few drivers, so that 48 bits are enough."""


class WrongSecret(ValueError):
    """The file with the secret cannot be used. The message says why and what to do."""


def read_secret(file: Path) -> bytes:
    """Return the secret in a file. Raises `WrongSecret`."""
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise WrongSecret(
            f"The secret of the workers {file} cannot be read ({error.strerror}): make one with `dabbawala keys init`."
        ) from None
    if len(secret) < MIN_SECRET_BYTES:
        raise WrongSecret(f"The secret in {file} is too short: it needs {MIN_SECRET_BYTES} characters or more.")
    return secret


class Tokens:
    """Maker and checker of the proofs of one installation."""

    def __init__(self, secret: Callable[[], bytes]) -> None:
        """``secret`` is called at the first proof."""
        self._key_for = cache(lambda purpose: hmac.digest(secret(), purpose.encode(), sha256))

    def of_forwarded(self, identity: Identity, method: str, path: str, body: bytes, now_ms: int) -> str:
        """Return the token with which a worker forwards a request of a sender that it has identified."""
        claims = ",".join((VERSION, str(now_ms), identity.role, identity.party, identity.name, identity.address))
        return f"{claims},{self._sign_request(claims, method, path, body)}"

    def read_forwarded(self, token: str, method: str, path: str, body: bytes, now_ms: int) -> Identity | None:
        """Return the sender that another worker identified; None if the token is not for this request and moment."""
        claims, _, signature = token.rpartition(",")
        fields = claims.split(",")
        if len(fields) != 6 or not _equal(signature, self._sign_request(claims, method, path, body)):
            return None
        _, at_ms, role, party, name, address = fields
        if abs(now_ms - int(at_ms)) > VALID_S * 1000:
            return None
        return Identity(name, Role(role), party, address=address)

    def capability(self, subject: str) -> str:
        """Return the part of a callback's address that proves that a worker gave it out for this subject."""
        return _text(hmac.digest(self._key_for("callback"), subject.encode(), sha256))

    def is_capability(self, text: str, subject: str) -> bool:
        """Return whether the text is the capability of a subject."""
        return _equal(text, self.capability(subject))

    def pseudonym(self, order: str, driver: str) -> str:
        """Return the name under which the public updates of an order show its driver.

        It is the same in all updates of the order. Without the secret, nobody can link the orders of a driver by it.
        """
        named = f"{order}/{driver}".encode()
        return hmac.digest(self._key_for("pseudonym"), named, sha256).hex()[:PSEUDONYM_DIGITS]

    def letter_signature(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> bytes:
        """Return the proof that a task of this installation wrote a dead letter."""
        parts = [b"%d" % partition, key, value]
        parts += [part for name, content in headers for part in (name.encode(errors="surrogatepass"), content)]
        return self._sign_parts("dead letter", parts)

    def command_signature(self, partition: int, offset: int, command: str, request: str) -> bytes:
        """Return the proof that a view of this installation wrote a command about a dead letter."""
        return self._sign_parts("command", [b"%d" % partition, b"%d" % offset, command.encode(), request.encode()])

    def action_signature(self, topic: str, key: bytes | None, value: bytes | None, acted: bytes) -> bytes:
        """Return the proof that a view of this installation wrote a record for an operator."""
        return self._sign_parts("action", [topic.encode(), key, value, acted])

    def _sign_parts(self, purpose: str, parts: Sequence[bytes | None]) -> bytes:
        """Return a signature of the parts, each with its length, so that no other parts have the same bytes."""
        framed = b"".join(b"-" if part is None else b"%d:%b" % (len(part), part) for part in parts)
        return _text(hmac.digest(self._key_for(purpose), framed, sha256)).encode()

    def _sign_request(self, claims: str, method: str, path: str, body: bytes) -> str:
        signed = "\n".join((claims, method, path, sha256(body).hexdigest()))
        return _text(hmac.digest(self._key_for("forwarding"), signed.encode(errors="surrogatepass"), sha256))


def _text(signature: bytes) -> str:
    return urlsafe_b64encode(signature).rstrip(b"=").decode()


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="surrogatepass"), other.encode())
