"""Settings: what can be used is, what cannot be is refused by name."""

import pytest

from streams.settings import Settings, WrongSetting

KAFKA = "KAFKA_BOOTSTRAP_SERVERS"


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
def test_what_is_no_broker_is_refused_by_name(value: str) -> None:
    with pytest.raises(WrongSetting) as wrong:
        Settings.from_environment({KAFKA: value})
    assert str(wrong.value) == f"{KAFKA}={value!r}: it must be host:port[,host:port]"
