"""Keys of the HTTP API: their file, their time, and its changes while a worker runs."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from streams.access.keys import Identity, KeyRing, Role, WrongKeys, add_key, read_keys, revoke_key
from streams.access.local_keys import LOCAL_RATE, local_key, make_local_keys

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


class Ring:
    """A ring whose times a test sets."""

    def __init__(self, file: Path) -> None:
        self.now = NOW
        self.clock = 0.0
        self.ring = KeyRing(file, lambda: self.now, lambda: self.clock)

    def find(self, key: str, after_s: float = 2.0) -> Identity | None:
        self.clock += after_s
        return self.ring.find(key)


def test_a_key_is_valid_until_it_is_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    ring = Ring(file)
    first = add_key(file, Role.PROVIDER, "my-shop", "shop-1")
    second = add_key(file, Role.PROVIDER, "my-shop", "shop-2")
    assert ring.find(first) == Identity("shop-1", Role.PROVIDER, "my-shop")
    assert ring.find(second) == Identity("shop-2", Role.PROVIDER, "my-shop"), "two keys of a party are valid at a time"
    revoke_key(file, "shop-1")
    assert ring.find(first, after_s=0.0) is not None, "the file is looked at once a second"
    assert ring.find(first) is None
    assert ring.find(second) is not None


def test_a_key_ends_at_its_time(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, Role.OPERATOR, "*", "ana", NOW + timedelta(days=1))
    ring = Ring(file)
    assert ring.find(key) == Identity("ana", Role.OPERATOR, "*")
    ring.now += timedelta(days=1)
    assert ring.find(key) is None


@pytest.mark.parametrize("key", ["", "dbw_operator_", "dbw_operator_x", "\ud800", "x" * 100_000])
def test_other_text_is_no_key(tmp_path: Path, key: str) -> None:
    file = tmp_path / "keys.json"
    add_key(file, Role.OPERATOR, "*", "ana")
    assert Ring(file).find(key) is None


def test_a_file_that_cannot_be_read_leaves_the_last_keys_valid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, Role.OPERATOR, "*", "ana")
    ring = Ring(file)
    assert ring.find(key)
    file.write_text("[{]")
    assert ring.find(key)
    assert "stay valid" in caplog.text
    file.unlink()
    assert ring.find(key)


def test_the_file_has_no_key_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, Role.OPERATOR, "*", "ana")
    assert key not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(("name", "party"), [("", "*"), ("a b", "*"), ("x\n", "*"), ("x", "a/b"), ("x", "a\n")])
def test_an_odd_name_or_party_is_refused(tmp_path: Path, name: str, party: str) -> None:
    with pytest.raises(WrongKeys, match="This cannot be a key"):
        add_key(tmp_path / "keys.json", Role.OPERATOR, party, name)


def test_names_of_keys_differ(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_key(file, Role.OPERATOR, "*", "ana")
    with pytest.raises(WrongKeys, match="There is a key with the name 'ana'"):
        add_key(file, Role.MONITOR, "*", "ana")
    with pytest.raises(WrongKeys, match="no key with the name 'eva'"):
        revoke_key(file, "eva")


@pytest.mark.parametrize(
    ("party", "own", "foreign"), [("my-shop", "my-shop", "my-shop-2"), ("my-*", "my-shop", "your-shop"), ("*", "x", "")]
)
def test_a_party_owns_its_things(party: str, own: str, foreign: str) -> None:
    identity = Identity("x", Role.PROVIDER, party)
    assert identity.speaks_for(own)
    assert identity.speaks_for(foreign) is (party == "*")


def test_local_keys_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DABBAWALA_KEY", raising=False)
    keys, secret = tmp_path / "keys.json", tmp_path / "secret"
    made = make_local_keys(tmp_path, keys, secret)
    assert len(made) == len(Role) + 1
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in made)
    key = local_key(tmp_path, Role.DRIVER)
    assert key is not None
    assert make_local_keys(tmp_path, keys, secret) == []
    assert Ring(keys).find(key) == Identity("local-driver", Role.DRIVER, "*", LOCAL_RATE)
    revoke_key(keys, "local-driver")
    assert make_local_keys(tmp_path, keys, secret) == [], "a revoked key does not come back"
    assert "local-driver" not in {key.name for key in read_keys(keys)}


def test_local_keys_survive_a_kill_of_their_maker(tmp_path: Path) -> None:
    keys, secret, file = tmp_path / "keys.json", tmp_path / "secret", tmp_path / "keys" / "driver"
    make_local_keys(tmp_path, keys, secret)
    file.unlink()  # as if its maker was killed after it wrote the entry
    assert make_local_keys(tmp_path, keys, secret) == [file]
    assert Ring(keys).find(file.read_text().strip()) == Identity("local-driver", Role.DRIVER, "*", LOCAL_RATE)
    keys.unlink()
    assert len(make_local_keys(tmp_path, keys, secret)) == len(Role)
    assert Ring(keys).find(file.read_text().strip()) == Identity("local-driver", Role.DRIVER, "*", LOCAL_RATE)
