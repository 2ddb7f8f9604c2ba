"""Topics that are missing or have other settings than the tasks need are found, and repaired where possible."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from exactly_once.engine import MAX_INT
from exactly_once.kafka.topic_admin import (
    ConfigMismatch,
    TopicMismatch,
    TopicSpec,
    check_topics,
    compare_topics,
    repair_topics,
)

RIGHT = {"transaction.max.timeout.ms": (10_000, MAX_INT)}


@pytest.fixture
def specs(unique: str) -> list[TopicSpec]:
    return [
        TopicSpec(f"{unique}-in", 4, {"retention.ms": "1000000"}),
        TopicSpec(f"{unique}-log", 4, {"cleanup.policy": "compact", "segment.bytes": "2000000"}),
    ]


async def test_created_topics_have_the_needed_settings(kafka: str, specs: list[TopicSpec]) -> None:
    client = {"bootstrap_servers": kafka}
    found = await compare_topics(client, specs, RIGHT)
    assert found == [ConfigMismatch(spec.name, "topic", "none", "one") for spec in specs]
    await repair_topics(client, specs, 1, found)
    assert await compare_topics(client, specs, RIGHT) == []


async def test_settings_are_repaired_but_not_the_partitions(kafka: str, specs: list[TopicSpec]) -> None:
    client = {"bootstrap_servers": kafka}
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    others = {"cleanup.policy": "compact", "retention.ms": "5", "max.message.bytes": "2000000"}
    await admin.create_topics([NewTopic(specs[0].name, 3, 1, topic_configs=others)])
    await admin.close()
    await check_topics(client, [TopicSpec(specs[0].name, 3)], wait_s=120)
    found = await compare_topics(client, specs, {})
    first, second = (spec.name for spec in specs)
    assert [(each.where, each.what, each.found, each.needed) for each in found] == [
        (second, "topic", "none", "one"),
        (first, "partitions", "3", "4"),
        (first, "cleanup.policy", "compact", "delete"),
        (first, "retention.ms", "5", "1000000"),
    ]
    await repair_topics(client, specs, 1, found)
    (left,) = await compare_topics(client, specs, {})
    assert (left.what, bool(left.advice)) == ("partitions", True)
    kept = TopicSpec(first, 3, {"max.message.bytes": "2000000", "retention.ms": "1000000"})
    assert await compare_topics(client, [kept], {}) == [], "other settings are unchanged"


async def test_a_broker_setting_out_of_range_is_only_reported(kafka: str, specs: list[TopicSpec]) -> None:
    client = {"bootstrap_servers": kafka}
    await repair_topics(client, specs, 1, await compare_topics(client, specs, {}))
    (found,) = await compare_topics(client, specs, {"transaction.max.timeout.ms": (MAX_INT, MAX_INT), "none": (1, 1)})
    assert (found.where[:7], found.what, found.needed) == (
        "broker ",
        "transaction.max.timeout.ms",
        f"at least {MAX_INT}",
    )
    await repair_topics(client, specs, 1, [found])
    assert await compare_topics(client, specs, {"transaction.max.timeout.ms": (0, 1)}) != []


async def test_a_setting_that_the_broker_rejects_is_one_sentence(kafka: str, specs: list[TopicSpec]) -> None:
    client = {"bootstrap_servers": kafka}
    await repair_topics(client, specs, 1, await compare_topics(client, specs, {}))
    name = specs[0].name
    with pytest.raises(TopicMismatch, match=rf"The settings of the topic {name} cannot be changed: .*\."):
        await repair_topics(client, specs, 1, [ConfigMismatch(name, "cleanup.policy", "delete", "nonsense")])
