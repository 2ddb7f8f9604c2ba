"""`faust -A streams.app worker`: Faust's own, after making sure of Kafka and of a place to work in.

Without `KAFKA_BOOTSTRAP_SERVERS` the embedded Kafka is started, under a lock, unless it runs. The worker takes the next
free `worker-N` directory, whose instance id is its static membership in the consumer group, and the next free port.
"""

import asyncio
from typing import Any

import faust.cli.worker
from mode import ServiceT
from yarl import URL

from streams.app import app, settings
from streams.catalogue_file import read_catalogue
from streams.cli.command import SENTENCES, fail
from streams.cli.kafka import find_kafka, use_kafka
from streams.embedded.slots import Slot, take_worker_slot


class worker(faust.cli.worker.worker):
    """Start a worker."""

    slot: Slot
    """Holds its lock as long as the worker lives."""

    def as_service(
        self,
        loop: asyncio.AbstractEventLoop,
        *args: Any,
        web_port: int | None = None,
        web_host: str | None = None,
        **kwargs: Any,
    ) -> ServiceT:
        """The app, told where its Kafka and its place are."""
        try:
            if settings.catalogue is not None:
                read_catalogue(settings.catalogue)
            use_kafka(find_kafka(settings, self.say))
            self.slot = take_worker_slot(settings.directory, port=web_port, host=web_host)
        except SENTENCES as error:
            fail(error)
        take_place(self.slot)
        return super().as_service(loop, *args, web_port=None, web_host=None, **kwargs)


def take_place(slot: Slot) -> None:
    """Tell the app where it lives."""
    app.conf.datadir = slot.datadir
    app.conf.web_port = slot.port
    app.conf.canonical_url = URL(slot.url)
    app.conf.consumer_group_instance_id = slot.instance_id
