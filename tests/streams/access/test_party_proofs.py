"""Proofs to outside parties: signatures and credentials, the file of secrets, and its changes while a worker runs."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from streams.access.local_keys import make_party_secrets
from streams.access.party_proofs import PartyProofs, WrongPartySecrets, read_party_secrets, without_credentials
from tests.support.keys import BANK, NEW_SIGNING_SECRET, SIGNING_SECRET, write_party_secrets
from tests.support.stack import ROOT
from topics.records import instant

KEY, BODY = "shop:1/prepare", '{"note": "café"}'.encode()


class Proofs:
    """Proofs of a file, whose times a test sets."""

    def __init__(self, file: Path) -> None:
        self.now_ms = 1_700_000_000_999
        self.clock = 0.0
        self.proofs = PartyProofs(file, lambda: self.now_ms, lambda: self.clock)

    def of_ticket(self, after_s: float = 2.0) -> Mapping[str, str]:
        self.clock += after_s
        return self.proofs.of_ticket("thali", KEY, BODY)


def is_signed(headers: Mapping[str, str], secret: str, monkeypatch: pytest.MonkeyPatch, late_s: int = 0) -> bool:
    """Return whether the library of Standard Webhooks accepts a signature so many seconds after it was made."""

    class Clock:
        now = staticmethod(lambda tz: instant(int(headers["webhook-timestamp"]) * 1000 + late_s * 1000))
        fromtimestamp = staticmethod(lambda seconds, tz: instant(round(seconds * 1000)))

    monkeypatch.setattr("standardwebhooks.webhooks.datetime", Clock)
    try:
        Webhook(secret).verify(BODY, dict(headers))
    except WebhookVerificationError:
        return False
    return True


def test_the_library_of_the_parties_accepts_a_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = Proofs(write_party_secrets(tmp_path / "secrets", thali=SIGNING_SECRET)).of_ticket()
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (KEY, "1700000000")
    assert is_signed(headers, SIGNING_SECRET, monkeypatch, late_s=300)
    assert not is_signed(headers, SIGNING_SECRET, monkeypatch, late_s=301)
    assert not is_signed(headers, NEW_SIGNING_SECRET, monkeypatch)
    assert not is_signed({**headers, "webhook-id": "shop:2/prepare"}, SIGNING_SECRET, monkeypatch)


def test_a_later_attempt_has_the_same_id_and_its_own_time(tmp_path: Path) -> None:
    proofs = Proofs(write_party_secrets(tmp_path / "secrets", thali=SIGNING_SECRET))
    first = proofs.of_ticket()
    proofs.now_ms += 1000
    second = proofs.of_ticket()
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 1
    assert first["webhook-signature"] != second["webhook-signature"]


def test_two_secrets_of_a_restaurant_sign_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = Proofs(
        write_party_secrets(tmp_path / "secrets", thali=f"{NEW_SIGNING_SECRET} {SIGNING_SECRET}")
    ).of_ticket()
    assert is_signed(headers, SIGNING_SECRET, monkeypatch)
    assert is_signed(headers, NEW_SIGNING_SECRET, monkeypatch)


def test_a_party_without_an_entry_gets_no_proof(tmp_path: Path) -> None:
    proofs = Proofs(write_party_secrets(tmp_path / "secrets", bank=None, dosa=SIGNING_SECRET))
    assert proofs.of_ticket() == {}
    assert proofs.proofs.of_payment() == {}
    without = PartyProofs(None, int, float)
    assert (without.of_ticket("thali", KEY, BODY), without.of_payment()) == ({}, {})


def test_a_changed_file_is_reread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secrets"
    proofs = Proofs(write_party_secrets(file, thali=SIGNING_SECRET))
    assert is_signed(proofs.of_ticket(), SIGNING_SECRET, monkeypatch)
    write_party_secrets(file, thali=NEW_SIGNING_SECRET)
    assert is_signed(proofs.of_ticket(after_s=0.5), SIGNING_SECRET, monkeypatch), "it looks once a second"
    assert is_signed(proofs.of_ticket(), NEW_SIGNING_SECRET, monkeypatch)


def test_an_unusable_file_leaves_the_last_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "secrets"
    proofs = Proofs(write_party_secrets(file, thali=SIGNING_SECRET))
    proofs.of_ticket()
    write_party_secrets(file, thali=NEW_SIGNING_SECRET).chmod(0o644)
    assert is_signed(proofs.of_ticket(), SIGNING_SECRET, monkeypatch)
    assert "stay in use" in caplog.text
    assert NEW_SIGNING_SECRET not in caplog.text
    file.chmod(0o600)
    assert is_signed(proofs.of_ticket(), NEW_SIGNING_SECRET, monkeypatch), "a change of the mode counts"
    file.unlink()
    assert is_signed(proofs.of_ticket(), NEW_SIGNING_SECRET, monkeypatch)


def test_no_request_leaves_before_the_file_was_read(tmp_path: Path) -> None:
    proofs = Proofs(tmp_path / "missing")
    for _ in range(2):
        with pytest.raises(WrongPartySecrets, match=r"cannot be read .*see DABBAWALA_PARTY_SECRETS"):
            proofs.of_ticket(after_s=0.0)
    write_party_secrets(tmp_path / "missing", thali=SIGNING_SECRET)
    assert proofs.of_ticket(after_s=0.0)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_reach_is_refused(tmp_path: Path, mode: int) -> None:
    file = write_party_secrets(tmp_path / "secrets", thali=SIGNING_SECRET)
    file.chmod(mode)
    with pytest.raises(WrongPartySecrets, match=f"run `chmod 600 {re.escape(str(file))}`"):
        read_party_secrets(file)


SHORT, LONG = "whsec_c2VjcmV0", "whsec_" + "c2Vj" * 30


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"restaurants": {"thali": SHORT}}, "/restaurants/thali: it must be whsec_ and 32 random bytes"),
        ({"restaurants": {"thali": LONG}}, "/restaurants/thali: it must be whsec_ and 32 random bytes"),
        ({"restaurants": {"thali": SIGNING_SECRET[:-1]}}, "/restaurants/thali: it must be whsec_"),
        ({"restaurants": {"thali": SIGNING_SECRET.removeprefix("whsec_")}}, "/restaurants/thali: it must be whsec_"),
        ({"restaurants": {"thali": f"{SIGNING_SECRET} {SHORT}"}}, "/restaurants/thali: it must be whsec_"),
        ({"restaurants": {"thali": [SIGNING_SECRET]}}, "/restaurants/thali: it must be text, not a list"),
        ({"restaurants": [SIGNING_SECRET]}, "/restaurants: it must be an object"),
        ({"restaurant": {"thali": SIGNING_SECRET}}, "its fields are `restaurants` and `payment_auth"),
        ({SIGNING_SECRET: 1}, "its fields are `restaurants` and `payment_authorization`"),
        ({"restaurants": {SIGNING_SECRET: "x"}}, "/restaurants/?: it must be whsec_"),
        ({"payment_authorization": BANK + "\r\nX: y"}, "/payment_authorization: it must be the value of the header"),
        ({"payment_authorization": BANK + "\u00e9"}, "/payment_authorization: it must be the value of the header"),
        ({"payment_authorization": ""}, "/payment_authorization: it must have at least 8 characters"),
    ],
)
def test_a_wrong_entry_is_named_and_not_shown(tmp_path: Path, content: dict[str, Any], reason: str) -> None:
    file = tmp_path / "secrets"
    file.touch(mode=0o600)
    file.write_text(json.dumps(content))
    with pytest.raises(WrongPartySecrets, match=re.escape(reason)) as wrong:
        read_party_secrets(file)
    assert not [secret for secret in (SHORT, LONG, SIGNING_SECRET[6:-1], BANK) if secret in str(wrong.value)]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"secret = 1"])
def test_other_content_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secrets"
    file.touch(mode=0o600)
    file.write_bytes(content)
    with pytest.raises(WrongPartySecrets, match=r"is no file of secrets of parties \(.*\): see docs/operations.md"):
        read_party_secrets(file)


def test_made_secrets_can_be_used_and_differ(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    make_party_secrets(file, ["thali", "dosa"])
    first = read_party_secrets(file)
    make_party_secrets(file, ["thali"])
    second = read_party_secrets(file)
    made = [*first.restaurants.values(), *second.restaurants.values()]
    assert set(first.restaurants) == {"thali", "dosa"}
    assert len(set(made)) == 3
    assert first.payment_authorization != second.payment_authorization


def test_credentials_in_an_answer_are_hidden() -> None:
    answer = f'{{"detail": "{BANK} is unknown, {BANK.split()[1]} too"}}'
    hidden = without_credentials(answer, {"Authorization": BANK})
    assert hidden == '{"detail": "Bearer [secret] is unknown, [secret] too"}'
    assert without_credentials(answer, {}) == answer


def test_the_contract_shows_a_valid_signature() -> None:
    text = (ROOT / "docs" / "contract-pos.md").read_text()
    secret, body = re.search(r"`(whsec_[^`]+)`\s+and\s+the\s+body\s+`([^`]+)`", text).groups()  # type: ignore[union-attr]
    shown = dict(re.findall(r"^(webhook-\w+): (\S+)$", text, re.MULTILINE))
    at = instant(int(shown["webhook-timestamp"]) * 1000)
    assert Webhook(secret).sign(shown["webhook-id"], at, body) == shown["webhook-signature"]
