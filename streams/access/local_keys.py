"""The keys that an installation on one machine makes for its own commands and simulators.

The commands, the demo and each simulator find the key of their role, for every party, in ``DABBAWALA_DIR/keys/<role>``.
These files, that of all keys and the secret are readable by their owner alone.
"""

import os
import secrets
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path

import msgspec

from streams.access.keys import ANY, Role, add_key, read_keys, revoke_key, write_private
from streams.access.party_proofs import read_party_secrets
from streams.access.tokens import read_secret
from streams.local.file_lock import locked
from streams.settings import Settings

SECRET_BYTES = 32
KEY_VARIABLE = "DABBAWALA_KEY"
LOCAL_RATE = 5000.0
"""Requests a second of these keys: the simulators send those of a whole city with them."""
LOCAL = "local-"
"""Prefix of the names of these keys."""


def make_local_keys(directory: Path, keys: Path, secret: Path) -> list[Path]:
    """Make the secret, and a key of each role, where they are missing, and return the new files.

    A key that was revoked does not come back as long as its file is there. A key whose file is missing is replaced: its
    maker may have been killed before it wrote the file. Raises `WrongKeys`.
    """
    home = directory / "keys"
    made = []
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(home / "lock"):
        if not secret.exists():
            write_private(secret, secrets.token_hex(SECRET_BYTES).encode() + b"\n")
            made.append(secret)
        is_new = not keys.exists()
        known = set() if is_new else {key.name for key in read_keys(keys)}
        for role in Role:
            file, name = home / role, f"{LOCAL}{role}"
            if file.exists() and not is_new:
                continue
            if name in known:
                revoke_key(keys, name)
            write_private(file, add_key(keys, role, ANY, name, rate=LOCAL_RATE).encode() + b"\n")
            made.append(file)
    return made


def prepare_access(settings: Settings) -> None:
    """Make what is missing in the installation's own directory, and check the keys and the secret.

    Files that the settings name elsewhere are made with `dabbawala keys init`. Raises `WrongKeys`, `WrongSecret` or
    `WrongPartySecrets`.
    """
    if settings.keys.parent == settings.directory and settings.secret_file.parent == settings.directory:
        make_local_keys(settings.directory, settings.keys, settings.secret_file)
    read_keys(settings.keys)
    read_secret(settings.secret_file)
    if settings.party_secrets is not None:
        read_party_secrets(settings.party_secrets)


def make_party_secrets(file: Path, restaurants: Iterable[str]) -> None:
    """Write a file with new secrets for these restaurants and for the payment provider."""
    made = {
        "restaurants": {restaurant: _new_signing_secret() for restaurant in restaurants},
        "payment_authorization": f"Bearer {secrets.token_urlsafe(SECRET_BYTES)}",
    }
    write_private(file, msgspec.json.encode(made) + b"\n")


def _new_signing_secret() -> str:
    return "whsec_" + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def local_key(directory: Path, role: Role) -> str | None:
    """Return the key of a command: `DABBAWALA_KEY`, or this installation's key of the role; None without one."""
    if key := os.environ.get(KEY_VARIABLE):
        return key
    try:
        return (directory / "keys" / role).read_text().strip()
    except OSError:
        return None
