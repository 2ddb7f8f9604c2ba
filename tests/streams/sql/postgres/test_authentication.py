"""SCRAM-SHA-256 and the file of the password."""

import base64
import hmac
from hashlib import pbkdf2_hmac
from pathlib import Path

import psycopg
import pytest

from streams.sql.postgres.authentication import (
    ITERATIONS,
    AuthenticationFailed,
    Exchange,
    Verifier,
    WrongPasswordFile,
    default_file,
    generate_once,
    read_password,
)
from tests.support.pg_client import PgClient, startup
from tests.support.pg_server import PASSWORD, Running


async def test_right_password_is_accepted(running: Running) -> None:
    async with await running.psycopg() as connection:
        assert connection.info.user == "operator"


@pytest.mark.parametrize("changed", [{"password": "another-password-of-16"}, {"user": "postgres"}])
async def test_wrong_credentials_are_refused(running: Running, changed: dict[str, str]) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"password of user operator is wrong|no user 'postgres'"):
        await running.psycopg(**changed)


async def test_password_never_crosses_the_connection(running: Running) -> None:
    client = await PgClient.open(running.port)
    client.send(startup(user="operator"))
    request = await client.message()
    assert request.payload == b"\0\0\0\x0aSCRAM-SHA-256\0\0"  # SASL, and no other mechanism


@pytest.mark.parametrize(
    "final",
    [
        b"c=biws,r=client-nonce,p=AAAA",  # the nonce of the server is missing
        b"",
        b"c=biws",
        b"\xff\xfe",
        b"c=biws,r=x,p=" + b"A" * 5000,
    ],
)
async def test_malformed_proof_is_refused(running: Running, final: bytes) -> None:
    client = await PgClient.open(running.port)
    client.send(startup(user="operator"))
    await client.authenticate(PASSWORD, final=final or b",")
    message = await client.message()
    assert message.kind == "E"
    assert message.fields["C"] in ("28P01", "22021")
    assert await client.closed() == b""


def test_proof_of_another_exchange_is_refused() -> None:
    exchange = Exchange(Verifier.of(PASSWORD))
    exchange.challenge("n,,n=,r=nonce")
    with pytest.raises(AuthenticationFailed):
        exchange.verify("c=biws,r=nonce,p=AAAA")


@pytest.mark.parametrize("changed", ["", "r=another"])
def test_proof_counts_for_its_nonce_only(changed: str) -> None:
    verifier = Verifier.of(PASSWORD)
    exchange = Exchange(verifier)
    challenge = exchange.challenge("n,,n=,r=nonce")
    bare = f"c=biws,{changed or challenge.split(',')[0]}"
    key = hmac.digest(pbkdf2_hmac("sha256", PASSWORD.encode(), verifier.salt, ITERATIONS), b"Client Key", "sha256")
    signature = hmac.digest(verifier.stored_key, f"n=,r=nonce,{challenge},{bare}".encode(), "sha256")
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
    if not changed:
        assert exchange.verify(f"{bare},p={proof}").startswith("v=")
        return
    with pytest.raises(AuthenticationFailed):
        exchange.verify(f"{bare},p={proof}")


@pytest.mark.parametrize("first", ["", "p=tls-unique,,n=,r=x", "n,,r=x", "n,,n=,r=", "n,,m=1,n=,r=x"])
def test_malformed_first_message_is_refused(first: str) -> None:
    with pytest.raises(AuthenticationFailed):
        Exchange(Verifier.of(PASSWORD)).challenge(first)


def test_password_is_generated_once_for_its_owner(tmp_path: Path) -> None:
    file = default_file(tmp_path)
    generate_once(file)
    first = read_password(file)
    generate_once(file)
    assert read_password(file) == first
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"short\n", b"with a space in it\n", "grüße-an-alle-welt".encode(), b"x" * 300]
)
def test_unfit_password_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(WrongPasswordFile, match="16 to 256"):
        read_password(file)


def test_password_file_that_others_may_open_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    file.chmod(0o640)
    with pytest.raises(WrongPasswordFile, match="chmod 600"):
        read_password(file)


def test_missing_password_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WrongPasswordFile, match="nowhere"):
        read_password(tmp_path / "nowhere")
