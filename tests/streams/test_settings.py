"""Settings: valid values are used, invalid ones are refused by name."""

from pathlib import Path

import pytest

from streams.build import build
from streams.cli.banner import banner
from streams.settings import Settings, WrongSetting

KAFKA = "KAFKA_BOOTSTRAP_SERVERS"
FAILPOINTS = "DABBAWALA_FAILPOINTS"
ALLOW = "DABBAWALA_ALLOW_FAILPOINTS"


@pytest.mark.parametrize(
    ("value", "servers"),
    [
        ("kafka:9092", "kafka:9092"),
        ("kafka_1.a-b:9092, 10.0.0.1:9093", "kafka_1.a-b:9092,10.0.0.1:9093"),
        ("[::1]:9092", "[::1]:9092"),
        ("kafka", "kafka"),
        ("", None),
    ],
)
def test_brokers_are_named_by_host_and_port(value: str, servers: str | None) -> None:
    assert Settings.from_environment({KAFKA: value}).bootstrap_servers == servers


@pytest.mark.parametrize("value", ["host:abc", "host:", ":9092", "a:1,,b:2", "a:99999", "kafka://a:1", "a b:1", "::1"])
def test_an_invalid_broker_is_named_in_the_error(value: str) -> None:
    with pytest.raises(WrongSetting) as wrong:
        Settings.from_environment({KAFKA: value})
    assert str(wrong.value) == f"{KAFKA}={value!r}: it must be host:port[,host:port]"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("comitted:kill:1", "there is no failpoint 'comitted'; there are opening, restoring, "),
        ("committed:explode:1", "there is no action 'explode'; there are stop, "),
        ("committed", "'committed' is not name:action:every, with every a number from 1"),
    ],
)
def test_wrong_failpoint_is_rejected_by_variable(value: str, reason: str) -> None:
    with pytest.raises(WrongSetting) as wrong:
        build(Settings.from_environment({FAILPOINTS: value, ALLOW: "1"}))
    assert str(wrong.value).startswith(f"{FAILPOINTS}={value!r}: {reason}")
    assert "\n" not in str(wrong.value)


def test_failpoints_are_passed_on_as_they_are() -> None:
    value = "committed:raise:3, stored:cut:1"
    assert Settings.from_environment({FAILPOINTS: value, ALLOW: "1"}).failpoints == value
    assert Settings.from_environment({}).failpoints == ""


@pytest.mark.parametrize("allow", [{}, {ALLOW: ""}, {ALLOW: "0"}, {ALLOW: "yes"}])
def test_failpoints_need_a_second_setting(allow: dict[str, str]) -> None:
    with pytest.raises(WrongSetting, match=r"^DABBAWALA_FAILPOINTS=.*set DABBAWALA_ALLOW_FAILPOINTS=1$"):
        Settings.from_environment({FAILPOINTS: "committed:raise:3", **allow})


def test_a_worker_with_failpoints_shows_them() -> None:
    value = "committed:raise:3"
    assert value in banner("http://w", "k:1", Path("worker-1"), value)
    assert "FAULTS" not in banner("http://w", "k:1", Path("worker-1"))
