"""The agents, one per topic and named after it. `AGENTS` lists them; `register` adds them to a worker's engine."""

from collections.abc import Callable
from functools import wraps

from exactly_once import Record, Task
from streams.agents import dead_letters, deliveries, dispatch, drivers, locations, orders, payments, pos
from streams.services import Services
from streams.worker.order_workflow import DecisionReply
from topics import families
from topics.families import Family

Agent = Callable[[Services, Task, Record], DecisionReply | None]
"""Function that applies a record; returns the decision on one that a sender may wait for."""

AGENTS: tuple[tuple[Family, Agent], ...] = (
    (families.ORDERS, orders.orders),
    (families.PAYMENTS, payments.payments),
    (families.POS, pos.pos),
    (families.DELIVERIES, deliveries.deliveries),
    (families.DISPATCH, dispatch.dispatch),
    (families.DRIVERS, drivers.drivers),
    (families.LOCATIONS, locations.locations),
    (families.DEAD_LETTERS, dead_letters.dead_letters),
)
"""Topic family and the function that applies its records."""


def register(services: Services) -> None:
    """Declare the source topics with the engine of these services, and an agent for each."""
    for family, agent in AGENTS:
        source = services.engine.source(services.topic_name(family), config=family.config)
        services.engine.agent(source)(_bind(services, agent))


def _bind(services: Services, agent: Agent) -> Callable[[Task, Record], None]:
    @wraps(agent)  # Faust names an agent after its function
    def apply(task: Task, record: Record) -> None:
        decision = agent(services, task, record)
        if decision is not None:
            services.audit.report(task, record, decision.outcome)

    return apply
