"""What the HTTP views of a worker do with a request: route it to the owner, make it a record, wait for the decision.

``streams.views`` is bound to the one Faust app of a process; this is the same path for each simulated worker.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka.errors import KafkaError

from processors.decision import Outcome
from processors.driver import Driver
from streams import tables
from streams.app import topic_of
from streams.engine import NotHere
from streams.workflow import REQUEST, Told
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import Network
from tests.simulation.worker import Worker
from topics import families
from topics.families import Family
from topics.records import Record, write

DECISION_S = 5.0
ACKNOWLEDGED_S = 10.0
SOON = (503, None)
Answer = tuple[int, Any]
"""Status and body."""
View = Callable[[Worker], Any]


class Front:
    """The address that parties outside know: every request goes to one of the workers."""

    def __init__(self, loop: VirtualLoop, network: Network, seed: str) -> None:
        self._loop, self._network = loop, network
        self._chance = network.chance("front")
        self.workers: dict[str, Worker] = {}
        """Those that listen, by name."""
        self._requests = 0

    async def ask(self, key: str, view: View, timeout_s: float = 15.0, *, reads: bool = False) -> Answer:
        """One request about a key. ``ConnectionError`` or ``TimeoutError`` where there is no answer."""
        await asyncio.sleep(self._network.delay_s("front"))
        if not self.workers:
            raise ConnectionError
        worker = self.workers[self._chance.choice(sorted(self.workers))]
        async with asyncio.timeout(timeout_s):
            return await self._ask(worker, key, view, reads=reads, sent_on=False)

    async def _ask(self, worker: Worker, key: str, view: View, *, reads: bool, sent_on: bool) -> Answer:
        if worker.actor.dead:
            raise ConnectionError
        answered: asyncio.Future[Answer] = self._loop.create_future()
        worker.said[answered] = None
        worker.spawn(self._serve(worker, key, view, answered, reads=reads, sent_on=sent_on))
        try:
            answer = await answered
        finally:
            worker.said.pop(answered, None)
        await asyncio.sleep(self._network.delay_s("front"))
        return answer

    async def _serve(
        self, worker: Worker, key: str, view: View, answered: "asyncio.Future[Answer]", *, reads: bool, sent_on: bool
    ) -> None:
        try:
            answer = await self._answer(worker, key, view, reads=reads, sent_on=sent_on)
        except (NotHere, ConnectionError, KafkaError, TimeoutError):
            answer = SOON
        if not answered.done():
            answered.set_result(answer)

    async def _answer(self, worker: Worker, key: str, view: View, *, reads: bool, sent_on: bool) -> Answer:
        engine = worker.engine
        partition = engine.partition_of(key.encode())
        if partition in engine.open_partitions():
            if reads:
                await engine.prove(partition)
            answer: Answer = await view(worker)
            return answer
        owner = self.workers.get(engine.owners().get(partition, ""))
        if owner is None or owner is worker or sent_on:
            return SOON
        if worker.actor in self._network.cut or owner.actor in self._network.cut:
            raise ConnectionError
        return await self._ask(owner, key, view, reads=reads, sent_on=True)

    # -- the views ----------------------------------------------------------------------------------------------------

    def decide(self, family: Family, record: Record) -> View:
        """Have a record decided, as ``streams.views.ask.decide``."""

        async def view(worker: Worker) -> Answer:
            self._requests += 1
            request = f"request-{self._requests}"
            with worker.engine.watch.answer(request) as decision:
                await self.produce(worker, family, record, request)
                try:
                    told = await decision.get(DECISION_S)
                except TimeoutError:
                    return 202, None
            assert isinstance(told, Told)
            return _status(told), told

        return view

    async def produce(self, worker: Worker, family: Family, record: Record, request: str) -> None:
        """Put a record on its topic; returns when the brokers have it."""
        topic, key = topic_of(family), record.key.encode()
        tp = (topic, worker.engine.partition_of(key))
        async with asyncio.timeout(ACKNOWLEDGED_S):
            await worker.ask(
                "send", lambda: worker.broker.append(tp, key, write(record), [(REQUEST, request.encode())])
            )

    @staticmethod
    def driver(driver: str) -> View:
        """`GET /v1/drivers/{driver}`."""

        async def view(worker: Worker) -> Answer:
            row = _driver(worker, driver)
            return (404, None) if row is None else (200, row)

        return view

    @staticmethod
    def delivery(driver: str, wait_s: float) -> View:
        """`GET /v1/drivers/{driver}/delivery`, the long poll."""

        async def view(worker: Worker) -> Answer:
            engine, deadline = worker.engine, asyncio.get_running_loop().time() + wait_s
            while (row := _driver(worker, driver)) is None or row.assignment is None:
                left_s = deadline - asyncio.get_running_loop().time()
                if left_s <= 0 or not await engine.watch.changed(tables.drivers.name, driver.encode(), left_s):
                    return 204, None
                await engine.prove(engine.partition_of(driver.encode()))
            return 200, row

        return view


def _driver(worker: Worker, driver: str) -> Driver | None:
    key = driver.encode()
    found = worker.engine.read(tables.drivers.name, worker.engine.partition_of(key), key)
    return None if found is None else tables.drivers.decode(driver, found)


def _status(told: Told) -> int:
    if told.failed:
        return 500
    return {Outcome.REFUSED: 409, Outcome.UNKNOWN: 404}.get(told.outcome, 200)


ORDERS, PAYMENTS, POS, DRIVERS = families.ORDERS, families.PAYMENTS, families.POS, families.DRIVERS
