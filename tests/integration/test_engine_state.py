"""Restores, dead letters, forwarded records and timers on a real Kafka, checked from outside the worker."""

import asyncio
import shutil
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from exactly_once.faust.worker import USAGE
from exactly_once.kafka.partitioning import java_partition
from exactly_once.kafka.topic_admin import check_topics, create_topics
from tests.integration.engine_kit import names
from tests.integration.engine_kit.harness import WITHIN_S, Run, Worker

TIMER_MS = 10_000
"""Delay of a timer that is to be pending when the worker is killed, also on a busy machine."""


async def stopped_after(toy: Run, worker: Worker, records: int) -> None:
    """Send records, wait for all their effects, and stop the worker."""
    await toy.send(records)
    await toy.done()
    assert worker.terminate() == 0, worker.tail()


async def opened_and_stopped(toy: Run, failpoints: str = "") -> Worker:
    """Start a worker without load, stop it once its tasks are open, and return it."""
    worker = toy.start(TOY_FAILPOINTS=failpoints)
    await toy.wait(lambda: worker.logged("tasks [0, 1, 2, 3] open"), why="all tasks are open")
    assert worker.terminate() == 0, worker.tail()
    return worker


async def test_a_wiped_disk_is_restored_byte_for_byte(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        await stopped_after(toy, toy.start(), 2000)
        before = toy.stored()
        committed = {(table, *at): value for table, rows in toy.judge.rows.items() for at, value in rows.items()}
        assert before == committed
        shutil.rmtree(tmp_path / "worker-1")
        await opened_and_stopped(toy)
        assert toy.stored() == before


async def test_a_restore_resumes_after_a_kill(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        await stopped_after(toy, toy.start(), 3000)
        before = toy.stored()
        shutil.rmtree(tmp_path / "worker-1")
        doomed = toy.start(TOY_FAILPOINTS="restoring:kill:3")
        await toy.wait(lambda: doomed.dead, why="killed during the restore")
        await opened_and_stopped(toy)
        assert toy.stored() == before


@pytest.mark.parametrize("failpoint", ["restoring:raise:6", "restoring:cut:1"])
async def test_a_failed_restore_is_repeated(kafka: str, unique: str, tmp_path: Path, failpoint: str) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        await stopped_after(toy, toy.start(), 1000)
        before = toy.stored()
        shutil.rmtree(tmp_path / "worker-1")
        assert (await opened_and_stopped(toy, failpoint)).logged("failpoint restoring")
        assert toy.stored() == before


async def test_only_missing_tables_are_restored_and_foreign_ones_wiped(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        await stopped_after(toy, toy.start(), 1000)
        before = toy.stored()
        shutil.rmtree(toy.store_path(2))
        assert (await opened_and_stopped(toy)).logged(": 0 changelog records restored") == 3
        assert toy.stored() == before

        await recreate(toy, names.changelog(unique, "seen"))
        worker = await opened_and_stopped(toy)
        assert worker.logged("seen-changelog: the topic was recreated") == 4
        assert toy.stored() == {key: value for key, value in before.items() if key[0] != "seen"}


async def recreate(toy: Run, topic: str) -> None:
    """Delete a topic and create it again: it keeps its name and gets another id."""
    settings = {"bootstrap_servers": toy.kafka}
    admin = AIOKafkaAdminClient(**settings)
    await admin.start()
    await admin.delete_topics([topic])
    await admin.close()
    specs = [spec for spec in toy.topics() if spec.name == topic]
    async with asyncio.timeout(120):
        while not await create_topics(settings, specs, 1):
            pass  # the topic exists until the broker has deleted it
    await check_topics(settings, specs, wait_s=120)


async def test_a_record_that_raises_becomes_a_dead_letter(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        await toy.send_one(b"order-1", b"poison")
        await toy.send_one(b"order-1", b"refuse")
        worker = await toy.at_work(toy.start())
        await toy.send(50)
        await toy.done()
        await toy.wait(lambda: len(toy.judge.letters) == 2, why="two dead letters")
        poison, refused = sorted(toy.judge.letters, key=lambda letter: int(letter["origin.offset"]))
        partition = java_partition(b"order-1", names.PARTITIONS)
        origin = (names.orders(unique), str(partition))
        assert (poison["origin.topic"], poison["origin.partition"]) == origin
        assert poison["dead-letter.reason"] == "RuntimeError: this record is poison"
        assert poison["exception.class"] == "builtins.RuntimeError"
        assert poison["exception.message"] == "this record is poison"
        assert "in order" in poison["exception.stack"]
        assert refused["dead-letter.reason"] == "not this one"
        assert "exception.stack" not in refused
        assert not worker.logged("broken")


async def test_a_record_in_the_wrong_partition_is_forwarded(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        await toy.at_work(toy.start())
        for partition in range(names.PARTITIONS):
            await toy.send_one(b"somewhere", b"v", partition)
        toy.sent += names.PARTITIONS
        await toy.done()
        counts = {key: value for (_, key), value in toy.judge.rows["counts"].items()}
        assert counts[b"somewhere"] == b"4"


async def test_more_timers_than_the_head_holds_fire_once_each(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path, TOY_TIMER_MS="1500", TOY_TIMER_HEAD="16") as toy:
        await toy.send(3000)
        toy.start()
        await toy.done()
        assert not toy.judge.letters


async def test_a_timer_due_during_downtime_fires_after_the_start(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path, TOY_TIMER_MS=str(TIMER_MS)) as toy:
        worker = await toy.at_work(toy.start())
        await toy.send(100)
        await toy.wait(lambda: toy.judge.sums()["counts"] == toy.sent, why="every record is applied")
        worker.kill()
        assert toy.judge.sums()["fired"] < toy.sent
        await asyncio.sleep(TIMER_MS / 1000)  # by the clock every timer is due now
        toy.start()
        await toy.done()


async def test_a_kill_within_a_burst_of_timers_repeats_none(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path, TOY_TIMER_MS="4000", TOY_TIMER_HEAD="64") as toy:
        await toy.send(6000)
        worker = toy.start(TOY_DIES_AT="3000")
        await toy.wait(lambda: worker.dead, why="the worker dies in the burst")
        await toy.judge.read()
        assert toy.judge.sums()["fired"] < toy.sent
        toy.start()
        await toy.done()
        assert not toy.judge.letters


async def test_a_worker_with_other_topics_ends_with_one_sentence(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, f"{unique}-other", tmp_path) as toy:
        wrong = [spec for spec in toy.topics() if spec.name == names.pos(toy.run)]
        await create_topics({"bootstrap_servers": kafka}, [type(wrong[0])(names.pos(unique), 3)], 1)
        worker = toy.start(TOY_RUN=unique)
        assert worker.process.wait(WITHIN_S) == USAGE
        sentence = f"The topic {names.pos(unique)} has 3 partitions where 4 are needed"
        assert worker.logged(sentence) == 1, worker.tail()
        assert not worker.logged("Traceback")


async def test_a_worker_without_a_broker_ends_with_one_sentence(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        worker = toy.start(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
        assert worker.process.wait(WITHIN_S) == USAGE
        assert worker.logged("No Kafka broker answers at 127.0.0.1:1: start it, or configure its address.") == 1
        assert not worker.logged("Traceback")


async def test_the_groups_offsets_follow_the_tasks(kafka: str, unique: str, tmp_path: Path) -> None:
    """Monitoring reads the lag from these offsets; the tasks resume from their rows."""
    async with Run(kafka, unique, tmp_path) as toy:
        toy.start()
        await toy.send(200)
        await toy.done()
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            reached = {names.orders(unique): 0, names.pos(unique): 0}
            async with asyncio.timeout(120):
                while reached != toy.positions():
                    offsets = await admin.list_consumer_group_offsets(unique)
                    reached = {
                        topic: sum(o.offset for tp, o in offsets.items() if tp.topic == topic) for topic in reached
                    }
                    await toy.judge.read()
        finally:
            await admin.close()


async def test_a_recreated_source_is_read_from_its_start(kafka: str, unique: str, tmp_path: Path) -> None:
    """The new topic has more records than the old one, so offsets alone would not show the difference."""
    async with Run(kafka, unique, tmp_path) as toy:
        worker = toy.start()
        await toy.send(100, ids=7)
        await toy.done()
        assert worker.terminate() == 0
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            await admin.delete_topics([names.orders(unique)])
        finally:
            await admin.close()
        async with asyncio.timeout(120):
            while not await create_topics({"bootstrap_servers": kafka}, toy.topics(), 1):
                await toy.judge.read()  # the topic exists until the broker has deleted it
        await toy.send(300, ids=7)
        worker = toy.start()
        await toy.done()
        assert worker.logged(f"{names.orders(unique)}/0 was recreated: the task reads it from its start")
        assert not worker.logged(f"{names.pos(unique)}/0 was recreated")
