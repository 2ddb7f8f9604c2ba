"""Two workers in one process share nothing and process one order each."""

from pathlib import Path

from msgspec.structs import replace

from streams.build import Place, build
from streams.services import Services
from streams.settings import Settings
from verification.simulation.plan import Plan
from verification.simulation.world import World

SETTINGS = Settings.from_environment({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "DABBAWALA_CATALOGUE": ""})


def named(prefix: str) -> Services:
    """Build a worker of a separate installation."""
    return build(replace(SETTINGS, topic_prefix=prefix, application=prefix))


def test_two_workers_in_one_process_share_nothing() -> None:
    one, other = named("one"), named("other")
    for worker, prefix in ((one, "one"), (other, "other")):
        assert worker.app.conf.id == prefix
        assert all(topic.startswith(f"{prefix}.") for topic in worker.engine.sources)
        assert all(changelog.startswith(f"{prefix}-") for changelog in worker.engine.changelogs.values())
        assert {view.services for view in worker.app.web.views.values() if hasattr(view, "services")} == {worker}
        assert len(worker.app.agents) == len(worker.engine.sources) == 8
    assert one.tables.orders is not other.tables.orders


def test_a_worker_is_rebuilt_for_a_kafka_and_a_place(tmp_path: Path) -> None:
    place = Place(tmp_path, 7001, "http://127.0.0.1:7001", "worker-7-abc")
    rebuilt = named("one").app.rebuild("broker-1:9092,broker-2:9092", place)  # type: ignore[attr-defined]
    conf = rebuilt.app.conf
    assert [f"{url.host}:{url.port}" for url in conf.broker] == ["broker-1:9092", "broker-2:9092"]
    assert (conf.datadir, conf.web_port, conf.consumer_group_instance_id) == (place.datadir, 7001, "worker-7-abc")
    assert str(conf.canonical_url) == "http://127.0.0.1:7001"


def test_two_workers_in_one_process_take_an_order_each() -> None:
    world = World(Plan(seed=5, orders=3, workers=2, drivers=2, partitions=2, faults=()))
    assert world.run().wrong == ()
    placed = {number for number, rows in rows_by_partition(world).items() if rows}
    assert {world.broker.owners[number] for number in placed} == {"worker-1", "worker-2"}


def rows_by_partition(world: World) -> dict[int, set[bytes]]:
    """Return partition -> keys of its rows in the table of orders, according to the changelog."""
    rows: dict[int, set[bytes]] = {number: set() for number in range(world.plan.partitions)}
    for record in world.broker.committed(world.declared.engine.changelogs["orders"]):
        assert record.key is not None
        rows[record.partition].add(record.key)
    return rows
