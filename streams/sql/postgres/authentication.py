"""Authentication of clients by SCRAM-SHA-256 (RFC 5802, RFC 7677): a password never crosses the connection.

There is one user. The password is random and in a file that only its owner may read.
"""

import base64
import hmac
import re
import secrets
from hashlib import pbkdf2_hmac, sha256
from pathlib import Path

from msgspec import Struct

from streams.access.keys import write_private
from streams.local.file_lock import locked

USER = "operator"
MECHANISM = "SCRAM-SHA-256"
ITERATIONS = 4096
"""PostgreSQL's default. The file has the password itself, so more would protect nothing."""
SALT_BYTES = 16
NONCE_BYTES = 18
PASSWORD_BYTES = 24
MIN_PASSWORD, MAX_PASSWORD = 16, 256

_PASSWORD = re.compile(rf"[!-~]{{{MIN_PASSWORD},{MAX_PASSWORD}}}")
_CLIENT_FIRST = re.compile(r"(?P<header>[ny],(?:a=[^,]*)?,)(?P<bare>n=[^,]*,r=(?P<nonce>[!-+\--~]{1,256})(?:,.*)?)")
_CLIENT_FINAL = re.compile(r"(?P<bare>c=(?P<header>[^,]*),r=(?P<nonce>[^,]*)(?:,.*)?),p=(?P<proof>[^,]*)", re.DOTALL)


class WrongPasswordFile(Exception):
    """The file of the password cannot be used. The message says why and what to do."""


class AuthenticationFailed(Exception):
    """The client did not prove that it has the password."""


def default_file(directory: Path) -> Path:
    """Return the file of the generated password in the data directory."""
    return directory / "sql" / "password"


def generate_once(file: Path) -> None:
    """Write a random password into the file, if it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.with_name(f"{file.name}.lock")):
        if not file.exists():
            write_private(file, f"{secrets.token_urlsafe(PASSWORD_BYTES)}\n".encode())


def read_password(file: Path) -> str:
    """Return the password in a file. Raises `WrongPasswordFile`."""
    try:
        mode = file.stat().st_mode
        password = file.read_text(encoding="ascii").rstrip("\r\n")
    except OSError as error:
        raise WrongPasswordFile(f"The password file {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        password = ""
    if mode & 0o077:
        raise WrongPasswordFile(f"Other users may open the password file {file}: run `chmod 600 {file}`.")
    if not _PASSWORD.fullmatch(password):
        raise WrongPasswordFile(
            f"The password in {file} cannot be used: write one line of {MIN_PASSWORD} to {MAX_PASSWORD} ASCII letters, "
            f"digits and signs."
        )
    return password


class Verifier(Struct, frozen=True):
    """Keys that check a proof of the password, without the password."""

    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def of(cls, password: str) -> "Verifier":
        """Derive the keys from the password."""
        salt = secrets.token_bytes(SALT_BYTES)
        salted = pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
        return cls(salt, sha256(_hmac(salted, "Client Key")).digest(), _hmac(salted, "Server Key"))


class Exchange:
    """The authentication of one client: first `challenge`, then `verify`."""

    def __init__(self, verifier: Verifier) -> None:
        """Expect the client's first message."""
        self._verifier = verifier
        self._header = ""
        self._nonce = ""
        self._messages = ""

    def challenge(self, client_first: str) -> str:
        """Return the challenge for the client's first message. Raises `AuthenticationFailed`."""
        found = _CLIENT_FIRST.fullmatch(client_first)
        if found is None:
            raise AuthenticationFailed("The first message of SCRAM-SHA-256 is malformed.")
        self._header = found["header"]
        self._nonce = found["nonce"] + secrets.token_urlsafe(NONCE_BYTES)
        salt = base64.b64encode(self._verifier.salt).decode()
        challenge = f"r={self._nonce},s={salt},i={ITERATIONS}"
        self._messages = f"{found['bare']},{challenge}"
        return challenge

    def verify(self, client_final: str) -> str:
        """Return the server's proof for the client's. Raises `AuthenticationFailed`."""
        found = _CLIENT_FINAL.fullmatch(client_final)
        header = base64.b64encode(self._header.encode()).decode()
        if found is None or found["header"] != header or found["nonce"] != self._nonce:
            raise AuthenticationFailed("The last message of SCRAM-SHA-256 is malformed.")
        signed = f"{self._messages},{found['bare']}"
        mask = _hmac(self._verifier.stored_key, signed)
        client_key = bytes(a ^ b for a, b in zip(_decoded(found["proof"]), mask, strict=False))
        if not hmac.compare_digest(sha256(client_key).digest(), self._verifier.stored_key):
            raise AuthenticationFailed(f"The password of user {USER} is wrong.")
        return f"v={base64.b64encode(_hmac(self._verifier.server_key, signed)).decode()}"


def _decoded(proof: str) -> bytes:
    try:
        return base64.b64decode(proof, validate=True)
    except ValueError:
        return b""


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
