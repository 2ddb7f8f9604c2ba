"""Keys of the HTTP API: who holds them, and the file that has their hashes.

A key is ``dbw_<role>_<43 random characters>``. The file (``DABBAWALA_KEYS``) has one entry for each key, and of the key
itself only its SHA-256: a random key of 256 bits needs no slow hash. A role and party may have several keys at a time,
so that a key can be replaced without a pause.
"""

import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import msgspec
from msgspec import Meta

from streams.local.file_lock import locked
from topics.records import Instant

log = logging.getLogger(__name__)

KEY_BYTES = 32
REREAD_S = 1.0
"""Pause between two looks at the file's time of change."""
MAX_RATE = 100_000
ANY = "*"
"""A party that ends with it stands for every id that begins with what is before it."""
KEY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
PARTY = r"^[A-Za-z0-9._~-]{0,64}\*?\Z"
SHA256 = r"^[0-9a-f]{64}\Z"


class Role(StrEnum):
    """Kind of the holder of a key, which decides on the routes that it may use."""

    PROVIDER = "provider"
    RESTAURANT = "restaurant"
    DRIVER = "driver"
    PAYMENTS = "payments"
    OPERATOR = "operator"
    MONITOR = "monitor"


RATES: Mapping[Role, float] = MappingProxyType(
    {
        Role.PROVIDER: 200.0,
        Role.RESTAURANT: 50.0,
        Role.DRIVER: 10.0,
        Role.PAYMENTS: 500.0,
        Role.OPERATOR: 100.0,
        Role.MONITOR: 10.0,
    }
)
"""Role -> requests a second of a key whose entry has no rate."""


class Identity(msgspec.Struct, frozen=True):
    """The sender of a request: the name of the key, its role, and the party for whose things it may speak."""

    name: str
    role: Role
    party: str = ANY
    rate: float | None = None
    """Requests a second that the key may send to one worker; None: those of its role."""
    address: str = ""
    """Address of the client's connection to the first worker; empty outside a request."""

    def speaks_for(self, party_id: str) -> bool:
        """Return whether things of a party are the sender's own."""
        if self.party.endswith(ANY):
            return party_id.startswith(self.party.removesuffix(ANY))
        return party_id == self.party


class StoredKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An entry of the file."""

    name: Annotated[str, Meta(pattern=KEY_NAME)]
    role: Role
    party: Annotated[str, Meta(pattern=PARTY)] = ANY
    sha256: Annotated[str, Meta(pattern=SHA256)]
    until: Instant | None = None
    """End of its validity; None: until it is revoked."""
    rate: Annotated[float, Meta(gt=0, le=MAX_RATE)] | None = None
    """Requests a second that it may send to one worker; None: those of its role."""


class WrongKeys(ValueError):
    """The file of keys cannot be used, or a change of it is impossible. The message says why and what to do."""


def new_key(role: Role) -> str:
    """Return a random key."""
    return f"dbw_{role}_{secrets.token_urlsafe(KEY_BYTES)}"


def digest(key: str) -> str:
    """Return the hash that the file has of a key."""
    return sha256(key.encode(errors="surrogatepass")).hexdigest()


def read_keys(file: Path) -> list[StoredKey]:
    """Return the entries of a file. Raises `WrongKeys`."""
    try:
        stored = msgspec.json.decode(file.read_bytes(), type=list[StoredKey])
    except OSError as error:
        raise WrongKeys(
            f"The file of keys {file} cannot be read ({error.strerror}): make one with `dabbawala keys init`."
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WrongKeys(f"{file} is not a file of keys ({error}): mend it, or take the copy that you kept.") from None
    names = [key.name for key in stored]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise WrongKeys(f"{file} has two keys with the name {twice[0]!r}: names must differ.")
    return stored


def add_key(
    file: Path, role: Role, party: str, name: str, until: datetime | None = None, rate: float | None = None
) -> str:
    """Add a key to the file, which is made if it is missing, and return the key. Raises `WrongKeys`."""
    key = new_key(role)
    with _changing(file):
        stored = read_keys(file) if file.exists() else []
        if any(other.name == name for other in stored):
            raise WrongKeys(f"There is a key with the name {name!r}: revoke it, or choose another --name.")
        try:
            entry = msgspec.convert(
                {"name": name, "role": role, "party": party, "sha256": digest(key), "until": until, "rate": rate},
                StoredKey,
            )
        except msgspec.ValidationError as wrong:
            raise WrongKeys(
                f"This cannot be a key ({wrong}): a name and a party have letters, digits, dots and dashes."
            ) from None
        _write(file, [*stored, entry])
    return key


def revoke_key(file: Path, name: str) -> None:
    """Remove a key from the file. Raises `WrongKeys`."""
    with _changing(file):
        stored = read_keys(file)
        kept = [key for key in stored if key.name != name]
        if len(kept) == len(stored):
            raise WrongKeys(f"There is no key with the name {name!r}: see `dabbawala keys list`.")
        _write(file, kept)


def write_private(file: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)


def _changing(file: Path) -> AbstractContextManager[None]:
    """Hold the lock of changes to the file within a `with` block."""
    return locked(file.with_name(f"{file.name}.lock"))


def _write(file: Path, stored: Sequence[StoredKey]) -> None:
    write_private(file, msgspec.json.format(msgspec.json.encode(stored), indent=2) + b"\n")


class KeyRing:
    """The keys of the file, reread soon after it changes. A file that cannot be used leaves the last keys valid."""

    def __init__(self, file: Path, now: Callable[[], datetime], clock: Callable[[], float]) -> None:
        """Open no file: the first search reads it."""
        self._file = file
        self._now = now
        self._clock = clock
        self._look_at = clock()
        self._version: tuple[int, int, int] | None = None
        self._keys: dict[str, StoredKey] = {}

    def find(self, key: str) -> Identity | None:
        """Return the holder of a key; None if the key is unknown, revoked or past its time."""
        self._reread()
        stored = self._keys.get(digest(key))  # the digest of a random key tells nothing to one who times the search
        if stored is None or (stored.until is not None and stored.until <= self._now()):
            return None
        return Identity(stored.name, stored.role, stored.party, stored.rate)

    def _reread(self) -> None:
        if self._clock() < self._look_at:
            return
        self._look_at = self._clock() + REREAD_S
        version = file_version(self._file)
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = _by_digest(read_keys(self._file))
        except WrongKeys as wrong:
            log.error("%s The keys that were read before stay valid.", wrong)


def _by_digest(stored: Sequence[StoredKey]) -> dict[str, StoredKey]:
    return {key.sha256: key for key in stored}


def file_version(file: Path) -> tuple[int, int, int]:
    """Return values of which one differs after a change of the file or of its mode."""
    try:
        state = file.stat()
    except OSError:
        return (0, 0, 0)
    return (state.st_ctime_ns, state.st_ino, state.st_size)
