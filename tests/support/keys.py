"""Keys that every installation of a test knows."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from streams.access.keys import ANY, MAX_RATE, Role, StoredKey, digest, write_private

KEYS: Mapping[Role, str] = {role: f"dbw_{role}_of-a-test" for role in Role}
"""Role -> a key that speaks for every party."""
STRANGERS: Mapping[Role, str] = {role: f"dbw_{role}_of-a-stranger" for role in Role if role is not Role.OPERATOR}
"""Role -> a key of a party that owns nothing."""
HEADERS: Mapping[str, str] = {"Authorization": f"Bearer {KEYS[Role.OPERATOR]}"}
"""Headers of a request that may do everything."""
REVEALED: Mapping[str, str] = {"reveal": "true", "reason": "a test compares it"}
"""Query of a request that shows personal data."""
SECRET = "the secret of all workers of a test"
SIGNING_SECRET = "whsec_" + "dGhlIHNlY3JldCBvZiBhIHJlc3RhdXJhbnQ="
NEW_SIGNING_SECRET = "whsec_" + "YW5vdGhlciBzZWNyZXQgb2YgYSByZXN0YXVyYW50"
BANK = "Bearer credentials-for-the-bank-of-a-test"
"""Value of the header `Authorization` of requests to the payment provider."""
OPERATOR = "test-operator"
"""Name of the operator's key."""


def write_keys(file: Path) -> None:
    """Write the file of these keys."""
    stored = [
        StoredKey(name=f"test-{role}", role=role, party=ANY, sha256=digest(key), rate=MAX_RATE)
        for role, key in KEYS.items()
    ]
    stored += [
        StoredKey(name=f"stranger-{role}", role=role, party="stranger", sha256=digest(key), rate=MAX_RATE)
        for role, key in STRANGERS.items()
    ]
    file.write_bytes(msgspec.json.encode(stored))


def write_party_secrets(file: Path, bank: str | None = BANK, **restaurants: str) -> Path:
    """Write a file of secrets of parties, and return its path."""
    write_private(file, msgspec.json.encode({"restaurants": restaurants, "payment_authorization": bank}))
    return file
