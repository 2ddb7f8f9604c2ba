"""The Faust app: what runs, wired together. `faust -A streams.app worker` starts a worker of it.

Read on in `streams/agents/` (what is consumed), `streams/tables.py` (what is kept), `streams/views/` (what is served),
`processors/` (what is decided) and `streams/engine/` (why nothing is lost).
"""

import logging
import sys
from typing import Any

import faust

from processors.parameters import Parameters
from streams.calls.performer import HttpPerformer
from streams.catalogue import HELP, Catalogue, RestaurantTopic
from streams.engine import Engine, EngineSettings, exactly_once
from streams.feed import Feed
from streams.problems import problem_middleware
from streams.settings import Settings, WrongSetting
from streams.update_log import UpdateLog
from topics import families
from topics.families import Family, topic_name

logging.getLogger("httpx").setLevel(logging.WARNING)  # it has a line to say of each request

DEFAULT_BROKER = "127.0.0.1:9092"
"""Where nobody has said anything else; a worker finds out before it starts."""
AGENTS = 8


class OrderEngine(Engine):
    """The engine, with what this app needs before it consumes anything: the catalogue."""

    async def prepare(self) -> None:
        """Create or check the topics, then read the catalogue."""
        await super().prepare()
        await catalogue.start(self.client_settings)


def topic_of(family: Family) -> str:
    """The Kafka topic of a family, in this installation."""
    return topic_name(family.name, settings.topic_prefix)


def public_url() -> str:
    """Where parties outside reach our web views: as told, else this worker."""
    return settings.public_url or str(app.conf.canonical_url).rstrip("/")


def _source(family: Family) -> Any:
    return engine.source(topic_of(family), config=family.config)


try:
    settings = Settings.from_environment()
except WrongSetting as wrong:
    print(wrong, file=sys.stderr)
    sys.exit(2)
parameters = Parameters(speed_up=settings.speed_up, retention_s=settings.retention_s, history_s=settings.history_s)
bootstrap = settings.bootstrap_servers or settings.embedded_address() or DEFAULT_BROKER
app = faust.App(
    settings.application,
    broker=[f"kafka://{server}" for server in bootstrap.split(",")],
    origin="streams",
    web_tables_enabled=False,  # Faust's own hashes a row's whole key and cannot list
    web_router_enabled=False,
    web_application_options={"middlewares": [problem_middleware], "client_max_size": 1 << 20},
    **exactly_once(partitions=settings.partitions, instance_id="worker-1"),
)
engine = OrderEngine(
    app,
    partitions=settings.partitions,
    anchor=topic_of(families.ORDERS),
    dead_letters=topic_of(families.DEAD_LETTERS),
    settings=EngineSettings(
        commit_gap_ms=settings.commit_gap_ms,
        create_topics=True,
        replication_factor=settings.replication_factor,
        leave_on_stop=settings.leave_on_stop,
        clock_apart_s=settings.clock_apart_s,
    ),
)
orders, payments, pos, deliveries, dispatch, drivers, locations, dead_letters = map(_source, families.SOURCES)
order_updates = engine.sink(topic_of(families.ORDER_UPDATES), config=families.ORDER_UPDATES.config)
history_config = {**families.ORDER_HISTORY.config, "retention.ms": str(round(settings.history_s * 1000))}
engine.sink(topic_of(families.ORDER_HISTORY), config=history_config)
restaurants = RestaurantTopic(
    engine.sink(topic_of(families.RESTAURANTS), config=families.RESTAURANTS.config),
    settings.partitions,
    engine.partition_of,
)
catalogue = Catalogue(
    # the host says nothing, but Faust takes a URL without one for none at all
    app.Table("restaurants", store="memory://here", changelog_topic=app.topic(restaurants.name), help=HELP),
    restaurants,
    settings.catalogue,
)
feed = Feed(UpdateLog(topic_of(families.ORDER_UPDATES), lambda: engine.client_settings), settings.partitions)
engine.performer = performer = HttpPerformer(settings.payment_url, settings.payment_provider, public_url)


@app.on_before_shutdown.connect
async def _let_go(*_: Any, **__: Any) -> None:
    """Close what has connections of its own."""
    await feed.stop()
    await catalogue.stop()
    await performer.close()


# each of these registers what it declares with the app above
import streams.agents  # noqa: E402
import streams.cli.in_faust  # noqa: E402
import streams.views  # noqa: E402,F401

if len(app.agents) != AGENTS:
    raise ImportError(f"{AGENTS} agents should consume the topics, but {len(app.agents)} are registered")
