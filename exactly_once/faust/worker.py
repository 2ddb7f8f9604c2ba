"""The process of a Faust worker: it starts or refuses in one sentence, and it stops in time.

It stops tables, consumer (which leaves the group if the worker is not to return), web server and producer.
"""

import asyncio
import gc
import os
import signal
import threading
from typing import NoReturn, cast

import faust
from aiokafka.errors import KafkaError
from faust.web.drivers.aiohttp import Web

from exactly_once.faust.host import TaskHost, host_of
from exactly_once.faust.http_server import BoundedRunner, raise_descriptor_limit
from exactly_once.kafka.producer import BrokerTooOld
from exactly_once.kafka.topic_admin import BrokerUnreachable, TopicMismatch
from exactly_once.settings import LEAVE_SIGNAL

USAGE = 2
"""Exit status of a worker that cannot run as it was started."""
GC_THRESHOLDS = (100_000, 20, 100)
"""Thresholds for ``gc.set_threshold``. A transaction keeps tens of thousands of objects alive until it commits: with
CPython's default of 700 a busy worker spends a fifth of its time in the collector."""
GATHER_S = 0.5
"""Limit of the wait for what still runs at the very end."""


class TaskWorker(faust.Worker):
    """A worker that stops on SIGTERM and SIGINT to come back, and on ``LEAVE_SIGNAL`` for good."""

    @property
    def host(self) -> TaskHost:
        return host_of(self.app)

    async def on_first_start(self) -> None:
        """Refuse to start, in one sentence, before there is anything to stop."""
        await super().on_first_start()
        web = cast(Web, self.app.web)
        settings = self.host.settings
        web._runner = BoundedRunner(
            web.web_app,
            max_connections=min(settings.max_connections, raise_descriptor_limit() // 2),
            access_log=None,
            keepalive_timeout=settings.keep_alive_s,
            shutdown_timeout=settings.close_requests_s,
        )
        try:
            await self.host.prepare()
        except (BrokerUnreachable, BrokerTooOld, TopicMismatch) as exc:
            self._refuse(str(exc))
        except KafkaError as exc:
            self._refuse(f"Kafka answers with an error ({exc!r}): start the worker again when Kafka is well.")
        gc.set_threshold(*GC_THRESHOLDS)

    def execute_from_commandline(self) -> NoReturn:
        """End in one sentence, too, if Kafka goes away while the worker starts."""
        try:
            super().execute_from_commandline()
        except SystemExit:
            if isinstance(self.crash_reason, KafkaError):
                self._refuse(f"Kafka went away ({self.crash_reason!r}): start the worker again when Kafka is back.")
            raise

    def _refuse(self, why: str) -> NoReturn:
        print(why, file=self.stderr)  # sys.stderr is redirected to the log by now, and `-l error` would hide this
        raise SystemExit(USAGE) from None

    def install_signal_handlers(self) -> None:
        super().install_signal_handlers()
        self.loop.add_signal_handler(LEAVE_SIGNAL, self._leave)

    def _leave(self) -> None:
        self.host.leaving = True
        self._flag_as_shutdown_by_signal()
        self._schedule_shutdown(LEAVE_SIGNAL)

    def _schedule_shutdown(self, signal: signal.Signals) -> None:
        """Stop within ``stop_s``, even if the broker is away or a client reads its response a byte a second."""
        if self._signal_stop_time is None:
            limit = threading.Timer(self.host.settings.stop_s, self._cut_off)
            limit.daemon = True
            limit.start()
        super()._schedule_shutdown(signal)

    def _cut_off(self) -> None:
        self.log.warning("the worker has not stopped in time: it exits now, which is as safe as a crash")
        os._exit(0)

    def _shutdown_loop(self) -> None:
        """Ignore further signals: the loop's handlers end with it, and the default one would change the exit status."""
        if self._signal_stop_time is not None:
            for number in (signal.SIGINT, signal.SIGTERM, LEAVE_SIGNAL):
                self.loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)
        super()._shutdown_loop()

    def _gather_all(self) -> None:
        """Cancel what still runs. Faust would wait a second for it to end by itself, which it does not."""
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.wait(left, timeout=GATHER_S) if left else asyncio.sleep(0))

    async def _sentinel_task(self) -> None:
        """Return at once. Faust sleeps for a second before it closes the event loop."""
