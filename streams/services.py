"""The parts of one worker that its agents and views use. `streams.build` makes them in order."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import faust

from exactly_once import Engine
from processors.parameters import Parameters
from streams.access.tokens import Tokens
from streams.calls.http_performer import HttpPerformer
from streams.catalogue.topic import Catalogue, RestaurantTopic
from streams.feed.audit_log import AuditLog
from streams.feed.feed import Feed
from streams.feed.order_history import OrderHistory
from streams.metrics.scraping import Scraping
from streams.settings import Settings
from streams.sql.reader_process import ReaderProcess
from streams.tracing.spans import Tracing
from streams.web.deciding import Decisions
from streams.web.doorkeeper import Doorkeeper
from streams.web.forwarding import Forwarding
from streams.web.limits import Limits
from streams.worker.audit import Audit
from streams.worker.order_workflow import OrderWorkflow
from streams.worker.tables import Tables
from topics.families import INPUTS, Family, topic_name


@dataclass(frozen=True)
class Services:
    """The parts of one worker. Two workers of one process share none of them."""

    settings: Settings
    parameters: Parameters
    app: faust.App
    engine: Engine
    tables: Tables
    order_workflow: OrderWorkflow
    performer: HttpPerformer
    restaurants: RestaurantTopic
    catalogue: Catalogue
    feed: Feed
    history: OrderHistory
    tokens: Tokens
    doorkeeper: Doorkeeper
    audit: Audit
    audit_log: AuditLog
    forwarding: Forwarding
    decisions: Decisions
    limits: Limits
    tracing: Tracing
    metrics: Scraping
    reader: ReaderProcess
    now_ms: Callable[[], int]
    """Wall clock in milliseconds since the epoch, for views; handlers use the clock of their task."""
    new_id: Callable[[], str]
    """Function that returns a unique id, for requests without an `Idempotency-Key`."""

    def topic_name(self, family: Family) -> str:
        """Return the Kafka topic of a family in this installation."""
        return topic_name(family.name, self.settings.topic_prefix)

    @cached_property
    def input_topics(self) -> frozenset[str]:
        """The topics that agents consume. A dead letter from one of them can be replayed."""
        return frozenset(self.topic_name(family) for family in INPUTS)
