"""`build` makes one worker from its settings. It opens no connection.

Two workers can be built in one process; they share nothing.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from uuid import uuid4

import faust
import httpx
import msgspec
from faust.web.drivers.aiohttp import Web

from exactly_once import Engine, EngineSettings, exactly_once
from exactly_once.calls.rows import CALLS
from exactly_once.task.failpoints import parse_failpoints
from processors.decision import Call
from processors.order_validation import MAX_ORDER_BYTES
from processors.parameters import Parameters
from processors.spatial_index import DispatchIndex
from streams import agents, views
from streams.access.keys import KeyRing
from streams.access.party_proofs import PartyProofs
from streams.access.tokens import Tokens, read_secret
from streams.agents import timers
from streams.calls.addresses import AllowedAddresses
from streams.calls.http_performer import HttpPerformer, row_of
from streams.catalogue.topic import HELP, Catalogue, RestaurantTopic
from streams.feed.audit_log import AuditLog
from streams.feed.feed import Feed
from streams.feed.order_history import OrderHistory
from streams.feed.update_log import UpdateLog
from streams.logs import logging_config
from streams.metrics.indexes import OpenOrders, RowCount, any_row, call_kind, driver_state
from streams.metrics.instruments import Instruments
from streams.metrics.observed import TaskMetrics, request_middleware
from streams.metrics.scraping import Scraping
from streams.services import Services
from streams.settings import LOOPBACK, Settings, WrongSetting
from streams.sql.reader_process import ReaderProcess
from streams.tracing.spans import OFF, Tracing
from streams.web.browser_rules import BrowserRules
from streams.web.deciding import Decisions
from streams.web.doorkeeper import Doorkeeper, Keys, tell_quota
from streams.web.forwarding import Forwarding, http_client
from streams.web.limits import Limits
from streams.web.problems import problem_middleware
from streams.web.rates import Rates
from streams.worker.audit import Audit
from streams.worker.order_workflow import OrderWorkflow
from streams.worker.sealing import new_data_key
from streams.worker.tables import Tables
from topics import families
from topics.families import topic_name

DEFAULT_BROKER = "127.0.0.1:9092"
"""Broker address of an app that is only inspected. The worker command finds Kafka before it builds the worker."""
INSPECTOR = "inspector"
"""Group instance id of an app that is only inspected. It never joins the consumer group."""


@dataclass(frozen=True)
class Place:
    """Place of a worker on its machine: data directory, HTTP port, URL, and group instance id (static membership)."""

    datadir: Path
    port: int
    url: str
    instance_id: str
    bind: str = LOOPBACK
    """IP address that its HTTP server listens on."""


class WorkerApp(faust.App):
    """A Faust app that can be rebuilt for another Kafka and place."""

    rebuild: "Callable[[str, Place], Services]"
    """Function that builds the same worker for a Kafka (bootstrap servers) and a place."""


@dataclass(frozen=True)
class Surroundings:
    """Factories of the parts of a worker that touch the outside world. A simulation replaces them."""

    make_app: Callable[..., WorkerApp] = WorkerApp
    make_engine: Callable[..., Engine] = Engine
    make_performer: Callable[..., HttpPerformer] = HttpPerformer
    make_workflow: Callable[..., OrderWorkflow] = OrderWorkflow
    make_http_client: Callable[[], httpx.AsyncClient] = http_client
    make_doorkeeper: Callable[..., Doorkeeper] = Doorkeeper
    make_keys: Callable[[Path], Keys] = lambda file: KeyRing(file, lambda: datetime.now(UTC), time.monotonic)
    read_secret: Callable[[Path], bytes] = read_secret
    now_ms: Callable[[], int] = field(default=lambda: time.time_ns() // 1_000_000)
    clock: Callable[[], float] = time.monotonic
    new_data_key: Callable[[], bytes] = new_data_key
    new_id: Callable[[], str] = field(default=lambda: uuid4().hex)


def build(settings: Settings, place: Place | None = None, surroundings: Surroundings | None = None) -> Services:
    """Make a worker: app, engine, tables, agents, views, calls, catalogue and feed, in this order.

    Without a ``place`` the app can be inspected but not run as a worker. The app's `rebuild` makes the same worker for
    another Kafka and a place. Raises `WrongSetting` for failpoints that cannot be used.
    """
    _check_failpoints(settings.failpoints)
    outside = surroundings or Surroundings()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs a line for each request
    parameters = Parameters(speed_up=settings.speed_up, retention_s=settings.retention_s, history_s=settings.history_s)
    app = outside.make_app(settings.application, **_app_settings(settings, place))
    engine = _make_engine(app, settings, outside)
    tables = Tables(engine)
    engine.index(tables.dispatch.name, DispatchIndex)
    instruments = Instruments()
    observed = _observe(engine, tables, instruments)
    updates = _sink(engine, settings, families.ORDER_UPDATES)
    history = _sink(engine, settings, families.ORDER_HISTORY, {"retention.ms": str(round(settings.history_s * 1000))})
    audit_topic = _sink(engine, settings, families.AUDIT)
    restaurants = RestaurantTopic(
        _sink(engine, settings, families.RESTAURANTS), settings.partitions, engine.partition_of
    )

    def this_worker() -> str:
        return str(app.conf.canonical_url).rstrip("/")

    tokens = Tokens(lambda: outside.read_secret(settings.secret_file))
    audit = Audit(tokens, settings.topic_prefix)
    doorkeeper = outside.make_doorkeeper(outside.make_keys(settings.keys), tokens, Rates(outside.clock), outside.now_ms)

    def row_of_call(call: Call, span: str) -> bytes:
        return row_of(call, settings.public_url or this_worker(), settings.payment_provider, span)

    tracing, stop_tracing = _make_tracing(engine, settings, place)
    engine.letter_signer = tokens.letter_signature
    engine.performer = performer = outside.make_performer(
        settings.payment_url,
        settings.payment_provider,
        tokens.capability,
        AllowedAddresses(settings.allowed_networks),
        PartyProofs(settings.party_secrets, outside.now_ms, outside.clock),
        tracing,
    )
    feed = Feed(UpdateLog(updates, lambda: engine.client_settings), settings.partitions)
    services = Services(
        settings=settings,
        parameters=parameters,
        app=app,
        engine=engine,
        tables=tables,
        order_workflow=outside.make_workflow(
            tables, parameters, settings.topic_prefix, row_of_call, tokens.pseudonym, outside.new_data_key, tracing
        ),
        performer=performer,
        restaurants=restaurants,
        catalogue=_make_catalogue(app, settings, restaurants),
        feed=feed,
        history=OrderHistory(engine, history, outside.now_ms),
        tokens=tokens,
        doorkeeper=doorkeeper,
        audit=audit,
        audit_log=AuditLog(audit_topic, settings.partitions, lambda: engine.client_settings),
        forwarding=Forwarding(engine, doorkeeper, this_worker, outside.make_http_client),
        decisions=Decisions(app, engine, audit, settings.topic_prefix, outside.new_id, settings.decision_s, tracing),
        limits=Limits(),
        tracing=tracing,
        metrics=Scraping(instruments, engine, tables, feed, observed, settings.payment_url, outside.clock),
        reader=ReaderProcess(lambda: Path(app.conf.datadir)),
        now_ms=outside.now_ms,
        new_id=outside.new_id,
    )
    agents.register(services)
    timers.register(services)
    views.register(services)
    if place is not None:
        urls = [place.url] if settings.public_url is None else [place.url, settings.public_url]
        application = cast(Web, app.web).web_app
        BrowserRules(urls, place.port, settings.allowed_origins).install(application)
        application.middlewares.insert(0, request_middleware(instruments))
        application.on_response_prepare.append(tell_quota)
    engine.before_consuming(_reading_the_secret(tokens))
    engine.before_consuming(lambda: services.catalogue.start(engine.client_settings))
    app.on_before_shutdown.connect(_closing(services, stop_tracing), weak=False)
    app.rebuild = partial(_rebuild, settings, surroundings)
    return services


def _observe(engine: Engine, tables: Tables, instruments: Instruments) -> TaskMetrics:
    """Count rows at each commit, and record what tasks and calls report."""
    engine.observer = observed = TaskMetrics(instruments, engine.dead_letters)
    engine.index(tables.orders.name, lambda: OpenOrders(observed.order_placed, observed.order_moved))
    engine.index(tables.drivers.name, lambda: RowCount(driver_state))
    engine.index(tables.dead_letters.name, lambda: RowCount(any_row))
    engine.index(CALLS, lambda: RowCount(call_kind))
    return observed


def _reading_the_secret(tokens: Tokens) -> Callable[[], Awaitable[None]]:
    async def read() -> None:
        """Make one pseudonym: handlers make the others, and do no I/O."""
        tokens.pseudonym("", "")

    return read


def _check_failpoints(value: str) -> None:
    try:
        parse_failpoints(value)
    except ValueError as wrong:
        raise WrongSetting(f"DABBAWALA_FAILPOINTS={value!r}: {str(wrong).removeprefix('failpoints: ')}") from None


def _make_engine(app: WorkerApp, settings: Settings, outside: Surroundings) -> Engine:
    return outside.make_engine(
        app,
        partitions=settings.partitions,
        anchor=topic_name(families.ORDERS.name, settings.topic_prefix),
        dead_letters=topic_name(families.DEAD_LETTERS.name, settings.topic_prefix),
        settings=EngineSettings(
            commit_gap_ms=settings.commit_gap_ms,
            create_topics=True,
            replication_factor=settings.replication_factor,
            leave_on_stop=settings.leave_on_stop,
            clock_apart_s=settings.clock_apart_s,
            failpoints=settings.failpoints,
        ),
    )


def _sink(
    engine: Engine, settings: Settings, family: families.Family, config: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Declare the topic of a family that handlers or views write to; return its name."""
    return engine.sink(topic_name(family.name, settings.topic_prefix), config={**family.config, **config})


def _make_catalogue(app: WorkerApp, settings: Settings, restaurants: RestaurantTopic) -> Catalogue:
    # the host has no meaning, but Faust does not recognise a URL without one
    table = app.Table("restaurants", store="memory://here", changelog_topic=app.topic(restaurants.name), help=HELP)
    return Catalogue(table, restaurants, settings.catalogue, allow_http=settings.allow_http_parties)


def _rebuild(settings: Settings, surroundings: Surroundings | None, servers: str, place: Place) -> Services:
    return build(msgspec.structs.replace(settings, bootstrap_servers=servers), place, surroundings)


def _app_settings(settings: Settings, place: Place | None) -> dict[str, Any]:
    """Return the settings of the Faust app."""
    servers = settings.bootstrap_servers or settings.embedded_address() or DEFAULT_BROKER
    placed: dict[str, Any] = (
        {}
        if place is None
        else {
            "datadir": place.datadir,
            "web_bind": place.bind,
            "web_port": place.port,
            "canonical_url": place.url,
        }
    )
    return exactly_once(
        # Faust prefers variables such as WEB_BIND, BROKER_URL and APP_DEBUG to its arguments. Another program may have
        # set them.
        env={},
        debug=False,
        partitions=settings.partitions,
        instance_id=INSPECTOR if place is None else place.instance_id,
        broker=[f"kafka://{server}" for server in servers.split(",")],
        origin="streams",
        logging_config=logging_config(settings.log_format),
        web_tables_enabled=False,  # Faust's view hashes a row's whole key, and cannot list rows
        web_router_enabled=False,
        web_graph_enabled=False,
        web_metrics_enabled=False,
        web_stats_enabled=False,
        web_application_options={"middlewares": [problem_middleware], "client_max_size": MAX_ORDER_BYTES},
        **placed,
    )


async def _stop_nothing() -> None:
    """Stop tracing that is off."""


def _make_tracing(
    engine: Engine, settings: Settings, place: Place | None
) -> tuple[Tracing, Callable[[], Awaitable[None]]]:
    """Return the tracing of a worker and the function that ends it. OpenTelemetry is imported only if it is on."""
    if settings.traced_share == 0 or place is None:
        return OFF, _stop_nothing
    from streams.tracing.export import Exporter

    try:
        exporter = Exporter(engine.counters, place.instance_id)
    except ValueError as wrong:
        raise WrongSetting(f"OTEL_*: the exporter of traces cannot use these variables: {wrong}") from None
    return Tracing(settings.traced_share, exporter.export), exporter.stop


def _closing(services: Services, stop_tracing: Callable[[], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def close(*_: Any, **__: Any) -> None:
        """Close the parts that hold connections."""
        await services.feed.stop()
        await services.reader.stop()
        await services.catalogue.stop()
        await services.performer.close()
        await services.forwarding.close()
        await stop_tracing()

    return close
