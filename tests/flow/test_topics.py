"""The commands `topics check` and `topics list`."""

import json
import uuid
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.support.stack import Stack, installed
from topics.families import FAMILIES, ORDERS, topic_name


@pytest.fixture
def bare(kafka: str, tmp_path: Path) -> Stack:
    """Return an installation without processes and topics."""
    with installed(kafka, f"topics-{uuid.uuid4().hex[:8]}", tmp_path, 1.0) as stack:
        return stack


async def test_check_lists_differences_and_repairs_them_on_request(bare: Stack) -> None:
    orders = topic_name(ORDERS.name, bare.name)
    wide = {"COLUMNS": "200"}
    status, printed, error = bare.faust("topics", "check", **wide)
    assert status == 1, error
    assert " others" in printed
    _, printed, _ = bare.faust("topics", "check", "--json")
    assert len([each for each in json.loads(printed)["differences"] if each["what"] == "topic"]) > len(FAMILIES)
    admin = AIOKafkaAdminClient(bootstrap_servers=bare.kafka)
    await admin.start()
    await admin.create_topics([NewTopic(orders, 4, 1, topic_configs={**ORDERS.config, "retention.ms": "60000"})])
    await admin.close()
    status, printed, error = bare.faust("topics", "check", "--json")
    assert status == 1, error
    [found] = [each for each in json.loads(printed)["differences"] if each["where"] == orders]
    assert (found["what"], found["found"], found["needed"]) == ("retention.ms", "60000", "604800000")
    status, printed, error = bare.faust("topics", "check", "--create", **wide)
    assert status == 0, printed + error
    assert f"{orders}: retention.ms=604800000 (it was 60000)\n" in printed
    assert f"{bare.name}.drivers: created\n" in printed
    status, printed, _ = bare.faust("topics", "check", **wide)
    assert (status, printed[-31:]) == (0, "topics have the right settings.\n"[-31:])


async def test_a_wrong_number_of_partitions_comes_with_advice(bare: Stack) -> None:
    bare.faust("topics", "check", "--create")
    status, printed, _ = bare.faust("topics", "check", "--create", DABBAWALA_PARTITIONS="5", COLUMNS="200")
    assert status == 1
    assert printed.count("the same number") == 1, "one row for all topics"


def test_without_a_broker_check_is_one_sentence(bare: Stack) -> None:
    status, printed, error = bare.faust("topics", "check", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (status, printed) == (2, "")
    assert "No Kafka broker answers at 127.0.0.1:1: start it, or configure its address.\n" in error


def test_list_shows_each_topic_with_its_settings(bare: Stack) -> None:
    status, printed, error = bare.faust("topics", "list", COLUMNS="200")
    assert status == 0, error
    assert all(topic_name(family.name, bare.name) in printed for family in FAMILIES)
    assert "retention.ms=604800000" in printed
    status, printed, error = bare.faust("topics", "list", "--json")
    assert status == 0, error
    listed = {topic["name"]: topic for topic in json.loads(printed)["topics"]}
    assert listed[topic_name(ORDERS.name, bare.name)]["config"]["retention.ms"] == "604800000"
