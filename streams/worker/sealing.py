"""Sealing of an order's rows in the history topic, so that they can be erased there: without the key nobody reads them.

Kafka cannot delete one record of a topic. So the rows of each order are encrypted under another data key (AES-256-GCM),
which the row in the table `history` has; erasing an order deletes its key (crypto-shredding).
"""

import secrets
from base64 import b64decode, b64encode
from binascii import Error

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES, NONCE_BYTES = 32, 12


class Unsealable(ValueError):
    """A sealed row cannot be opened: its key was erased, or is another."""


def new_data_key() -> bytes:
    """Return a random data key."""
    return secrets.token_bytes(KEY_BYTES)


class Seal:
    """The seal of one order's rows."""

    def __init__(self, key: bytes, order: str) -> None:
        """``key`` must be new for each retirement of an order, because the nonces are counted."""
        self._cipher = AESGCM(key)
        self._order = order.encode()
        self._count = 0

    def close(self, row: bytes) -> str:
        """Return a row sealed."""
        self._count += 1
        nonce = self._count.to_bytes(NONCE_BYTES)
        return b64encode(nonce + self._cipher.encrypt(nonce, row, self._order)).decode()

    def open(self, sealed: str) -> bytes:
        """Return the row of a sealed text. Raises `Unsealable`."""
        try:
            data = b64decode(sealed, validate=True)
            return self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], self._order)
        except (InvalidTag, Error, ValueError) as wrong:
            raise Unsealable(f"a row of {self._order.decode()} does not open with its key") from wrong
