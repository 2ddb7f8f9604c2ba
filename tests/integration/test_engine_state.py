"""What is on disk, what is set aside, what is sent on: read from outside, on a real Kafka."""

import asyncio
import shutil
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from streams.engine.engine import java_partition
from streams.engine.provision import check_topics, create_topics
from streams.engine.runtime import USAGE
from tests.integration.engine_kit import names
from tests.integration.engine_kit.harness import Run, Worker

pytestmark = pytest.mark.timeout(90)


async def stopped_after(toy: Run, worker: Worker, records: int) -> None:
    """Records done with, worker ended."""
    await toy.send(records)
    await toy.done()
    assert worker.terminate()[0] == 0, worker.tail()


async def opened_and_stopped(toy: Run, failpoints: str = "") -> Worker:
    """A worker that opened its tasks, with nothing to do, and ended."""
    worker = toy.start(DABBAWALA_FAILPOINTS=failpoints)
    await toy.wait(lambda: worker.logged("tasks [0, 1, 2, 3] open"), why="open")
    assert worker.terminate()[0] == 0, worker.tail()
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


async def test_a_kill_in_the_middle_of_a_restore_is_restored_from_there(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        await stopped_after(toy, toy.start(), 3000)
        before = toy.stored()
        shutil.rmtree(tmp_path / "worker-1")
        doomed = toy.start(DABBAWALA_FAILPOINTS="restoring:kill:3")
        await toy.wait(lambda: doomed.dead, why="killed while it restored")
        await opened_and_stopped(toy)
        assert toy.stored() == before


@pytest.mark.parametrize("failpoint", ["restoring:raise:6", "restoring:cut:1"])
async def test_a_restore_that_fails_begins_again(kafka: str, unique: str, tmp_path: Path, failpoint: str) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        await stopped_after(toy, toy.start(), 1000)
        before = toy.stored()
        shutil.rmtree(tmp_path / "worker-1")
        assert (await opened_and_stopped(toy, failpoint)).logged("failpoint restoring")
        assert toy.stored() == before


async def test_only_what_is_missing_is_restored_and_what_is_not_ours_is_wiped(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        await stopped_after(toy, toy.start(), 1000)
        before = toy.stored()
        shutil.rmtree(toy.store_path(2))
        assert (await opened_and_stopped(toy)).logged(": 0 changelog records restored") == 3
        assert toy.stored() == before

        await recreate(toy, names.changelog(unique, "seen"))
        worker = await opened_and_stopped(toy)
        assert worker.logged("seen-changelog: the topic has been created anew") == 4
        assert toy.stored() == {key: value for key, value in before.items() if key[0] != "seen"}


async def recreate(toy: Run, topic: str) -> None:
    """Delete a topic and create it again: the same name, another id."""
    settings = {"bootstrap_servers": toy.kafka}
    admin = AIOKafkaAdminClient(**settings)
    await admin.start()
    await admin.delete_topics([topic])
    await admin.close()
    specs = [spec for spec in toy.topics() if spec.name == topic]
    async with asyncio.timeout(20):
        while not await create_topics(settings, specs, 1):
            pass  # deletion takes a moment; until then it exists
    await check_topics(settings, specs, wait_s=10)


async def test_a_record_that_breaks_its_handler_is_undone_and_set_aside_with_its_cause(
    kafka: str, unique: str, tmp_path: Path
) -> None:
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


async def test_a_record_in_the_wrong_partition_is_sent_on_to_the_right_one(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        await toy.at_work(toy.start())
        for partition in range(names.PARTITIONS):
            await toy.send_one(b"somewhere", b"v", partition)
        toy.sent += names.PARTITIONS
        await toy.done()
        counts = {key: value for (_, key), value in toy.judge.rows["counts"].items()}
        assert counts[b"somewhere"] == b"4"


async def test_more_timers_than_the_head_holds_all_fire_once_and_none_early(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, unique, tmp_path, TOY_TIMER_MS="1500", TOY_TIMER_HEAD="16") as toy:
        await toy.send(3000)
        toy.start()
        await toy.done(within_s=40)
        assert not toy.judge.letters


async def test_a_timer_that_came_due_while_nobody_ran_fires_after_the_start(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, unique, tmp_path, TOY_TIMER_MS="1200") as toy:
        worker = await toy.at_work(toy.start())
        await toy.send(100)
        await toy.wait(lambda: toy.judge.sums()["counts"] == toy.sent, why="counted")
        worker.kill()
        assert toy.judge.sums()["fired"] < toy.sent
        toy.start()
        await toy.done()


async def test_a_burst_of_timers_that_a_kill_cuts_in_two_fires_each_once(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, unique, tmp_path, TOY_TIMER_MS="4000", TOY_TIMER_HEAD="64") as toy:
        await toy.send(6000)
        worker = toy.start()
        await toy.wait(lambda: toy.judge.sums()["fired"] > 100, why="the burst has begun")
        worker.kill()
        await toy.judge.read()
        assert toy.judge.sums()["fired"] < toy.sent
        toy.start()
        await toy.done(within_s=40)
        assert not toy.judge.letters


async def test_a_worker_refuses_to_start_where_topics_differ_and_says_so_in_a_sentence(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    async with Run(kafka, f"{unique}-other", tmp_path) as toy:
        wrong = [spec for spec in toy.topics() if spec.name == names.pos(toy.run)]
        await create_topics({"bootstrap_servers": kafka}, [type(wrong[0])(names.pos(unique), 3)], 1)
        worker = toy.start(TOY_RUN=unique)
        assert worker.process.wait(20) == USAGE
        sentence = f"The topic {names.pos(unique)} has 3 partitions where 4 are needed"
        assert worker.logged(sentence) == 1, worker.tail()
        assert not worker.logged("Traceback")


async def test_a_worker_without_a_broker_says_so_in_a_sentence(kafka: str, unique: str, tmp_path: Path) -> None:
    async with Run(kafka, unique, tmp_path) as toy:
        worker = toy.start(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
        assert worker.process.wait(20) == USAGE
        assert worker.logged("No Kafka broker answers at 127.0.0.1:1: start it, or say where it is.") == 1
        assert not worker.logged("Traceback")


async def test_the_group_is_told_how_far_its_tasks_are(kafka: str, unique: str, tmp_path: Path) -> None:
    """For those who watch its lag; the tasks themselves read on from their rows."""
    async with Run(kafka, unique, tmp_path) as toy:
        toy.start()
        await toy.send(200)
        await toy.done()
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            reached = {names.orders(unique): 0, names.pos(unique): 0}
            async with asyncio.timeout(30):
                while reached != toy.positions():
                    offsets = await admin.list_consumer_group_offsets(unique)
                    reached = {
                        topic: sum(o.offset for tp, o in offsets.items() if tp.topic == topic) for topic in reached
                    }
                    await toy.judge.read()
        finally:
            await admin.close()


async def test_a_source_that_was_created_anew_is_read_from_its_start_and_the_others_go_on(
    kafka: str, unique: str, tmp_path: Path
) -> None:
    """Also where it has grown beyond what was applied of the one before: the offsets alone say nothing."""
    async with Run(kafka, unique, tmp_path) as toy:
        worker = toy.start()
        await toy.send(100, ids=7)
        await toy.done()
        assert worker.terminate()[0] == 0
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            await admin.delete_topics([names.orders(unique)])
        finally:
            await admin.close()
        async with asyncio.timeout(30):
            while not await create_topics({"bootstrap_servers": kafka}, toy.topics(), 1):
                await toy.judge.read()  # the broker has not deleted it yet
        await toy.send(300, ids=7)
        worker = toy.start()
        await toy.done()
        assert worker.logged(f"{names.orders(unique)}/0 was created anew, it is read from its start")
        assert not worker.logged(f"{names.pos(unique)}/0 was created anew")
