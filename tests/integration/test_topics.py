"""Topics that are missing or otherwise than the tasks need them: found, and mended as far as that goes."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.engine.engine import MAX_INT
from streams.engine.provision import Difference, TopicsDiffer, TopicSpec, check_topics, compare_topics, mend_topics

RIGHT = {"transaction.max.timeout.ms": (10_000, MAX_INT)}


@pytest.fixture
def specs(unique: str) -> list[TopicSpec]:
    return [
        TopicSpec(f"{unique}-in", 4, {"retention.ms": "1000000"}),
        TopicSpec(f"{unique}-log", 4, {"cleanup.policy": "compact", "segment.bytes": "2000000"}),
    ]


async def test_topics_as_they_are_created_are_as_they_have_to_be(kafka: str, specs: list[TopicSpec]) -> None:
    client = {"bootstrap_servers": kafka}
    found = await compare_topics(client, specs, RIGHT)
    assert found == [Difference(spec.name, "topic", "none", "one") for spec in specs]
    await mend_topics(client, specs, 1, found)
    assert await compare_topics(client, specs, RIGHT) == []


async def test_what_differs_is_mended_but_for_the_number_of_partitions_and_other_settings_stay(
    kafka: str, specs: list[TopicSpec]
) -> None:
    client = {"bootstrap_servers": kafka}
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    others = {"cleanup.policy": "compact", "retention.ms": "5", "max.message.bytes": "2000000"}
    await admin.create_topics([NewTopic(specs[0].name, 3, 1, topic_configs=others)])
    await admin.close()
    await check_topics(client, [TopicSpec(specs[0].name, 3)], wait_s=10)
    found = await compare_topics(client, specs, {})
    first, second = (spec.name for spec in specs)
    assert [(each.where, each.what, each.found, each.needed) for each in found] == [
        (second, "topic", "none", "one"),
        (first, "partitions", "3", "4"),
        (first, "cleanup.policy", "compact", "delete"),
        (first, "retention.ms", "5", "1000000"),
    ]
    await mend_topics(client, specs, 1, found)
    (left,) = await compare_topics(client, specs, {})
    assert (left.what, bool(left.advice)) == ("partitions", True)
    kept = TopicSpec(first, 3, {"max.message.bytes": "2000000", "retention.ms": "1000000"})
    assert await compare_topics(client, [kept], {}) == [], "what nobody asked for is not touched"


async def test_a_broker_setting_out_of_its_range_is_told_of_and_left_alone(kafka: str, specs: list[TopicSpec]) -> None:
    client = {"bootstrap_servers": kafka}
    await mend_topics(client, specs, 1, await compare_topics(client, specs, {}))
    (found,) = await compare_topics(client, specs, {"transaction.max.timeout.ms": (MAX_INT, MAX_INT), "none": (1, 1)})
    assert (found.where[:7], found.what, found.needed) == (
        "broker ",
        "transaction.max.timeout.ms",
        f"at least {MAX_INT}",
    )
    await mend_topics(client, specs, 1, [found])
    assert await compare_topics(client, specs, {"transaction.max.timeout.ms": (0, 1)}) != []


async def test_a_setting_that_the_broker_refuses_is_one_sentence(kafka: str, specs: list[TopicSpec]) -> None:
    client = {"bootstrap_servers": kafka}
    await mend_topics(client, specs, 1, await compare_topics(client, specs, {}))
    name = specs[0].name
    with pytest.raises(TopicsDiffer, match=rf"The settings of the topic {name} cannot be changed: .*\."):
        await mend_topics(client, specs, 1, [Difference(name, "cleanup.policy", "delete", "nonsense")])
