"""Tokens between workers, and capabilities of callback addresses."""

from pathlib import Path

import msgspec
import pytest

from streams.access.keys import Identity, Role
from streams.access.tokens import Tokens, WrongSecret, read_secret
from topics.identity import PartyId

SENDER = Identity("ana", Role.PROVIDER, "my-*", address="::1")
NOW_MS = 1_700_000_000_000
TOKENS = Tokens(lambda: b"s" * 32)
TOKEN = TOKENS.of_forwarded(SENDER, "POST", "/v1/orders?x=1", b"{}", NOW_MS)


@pytest.mark.parametrize("late_ms", [-30_000, 0, 30_000])
def test_a_token_tells_the_sender(late_ms: int) -> None:
    assert TOKENS.read_forwarded(TOKEN, "POST", "/v1/orders?x=1", b"{}", NOW_MS + late_ms) == SENDER


@pytest.mark.parametrize(
    "request_",
    [
        ("GET", "/v1/orders?x=1", b"{}", NOW_MS),
        ("POST", "/v1/orders?x=2", b"{}", NOW_MS),
        ("POST", "/v1/orders?x=1", b"{ }", NOW_MS),
        ("POST", "/v1/orders?x=1", b"{}", NOW_MS + 30_001),
        ("POST", "/v1/orders?x=1", b"{}", NOW_MS - 30_001),
    ],
)
def test_a_token_is_for_one_request_and_moment(request_: tuple[str, str, bytes, int]) -> None:
    assert TOKENS.read_forwarded(TOKEN, *request_) is None


@pytest.mark.parametrize("at", range(len(TOKEN) - 1))  # the last character has bits that encode nothing
def test_a_changed_token_is_refused(at: int) -> None:
    other = "B" if TOKEN[at] == "A" else "A"
    changed = TOKEN[:at] + other + TOKEN[at + 1 :]
    assert TOKENS.read_forwarded(changed, "POST", "/v1/orders?x=1", b"{}", NOW_MS) is None


@pytest.mark.parametrize("token", ["", ",", "1", ",,,,,,", "v2,x,operator,*,a,b,c", "\ud800,,,,,,", "é" * 5000])
def test_other_text_is_no_token(token: str) -> None:
    assert TOKENS.read_forwarded(token, "GET", "/", b"", NOW_MS) is None


def test_another_secret_makes_other_proofs() -> None:
    other = Tokens(lambda: b"t" * 32)
    assert other.read_forwarded(TOKEN, "POST", "/v1/orders?x=1", b"{}", NOW_MS) is None
    assert not other.is_capability(TOKENS.capability("pos/a/b"), "pos/a/b")


def test_a_pseudonym_is_for_one_order_and_driver() -> None:
    pseudonym = TOKENS.pseudonym("shop:1", "asha")
    assert msgspec.convert(pseudonym, PartyId) == pseudonym
    assert Tokens(lambda: b"s" * 32).pseudonym("shop:1", "asha") == pseudonym
    others = {TOKENS.pseudonym("shop:2", "asha"), TOKENS.pseudonym("shop:1", "ravi")}
    others.add(Tokens(lambda: b"t" * 32).pseudonym("shop:1", "asha"))
    assert len(others - {pseudonym}) == 3


def test_a_capability_is_for_one_subject() -> None:
    capability = TOKENS.capability("pos/a/b")
    assert TOKENS.is_capability(capability, "pos/a/b")
    assert not TOKENS.is_capability(capability, "pos/a/c")
    assert not TOKENS.is_capability("", "pos/a/b")
    assert not TOKENS.is_capability("\ud800", "pos/a/b")


def test_a_short_or_missing_secret_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with pytest.raises(WrongSecret, match="cannot be read"):
        read_secret(file)
    file.write_text("short\n")
    with pytest.raises(WrongSecret, match="too short"):
        read_secret(file)
