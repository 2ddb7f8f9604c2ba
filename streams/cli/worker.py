"""`faust -A streams.app worker`: Faust's command, which first finds Kafka and a slot.

Without `KAFKA_BOOTSTRAP_SERVERS` it starts the embedded Kafka, under a lock, unless that runs already. The worker
acquires the next free `worker-N` directory, whose instance id is its static member id in the consumer group, and a
free port.
"""

import asyncio
import signal
import sys
from ipaddress import ip_address
from typing import Any

import faust.cli.worker
import mode
from mode import ServiceT

from exactly_once import LEAVE_SIGNAL
from streams.access.local_keys import prepare_access
from streams.build import Place, WorkerApp
from streams.catalogue.file import read_catalogue
from streams.cli.banner import print_banner_when, quiet_logs
from streams.cli.command import fail
from streams.cli.kafka import SENTENCES, find_kafka, read_settings
from streams.local.private_directory import make_private
from streams.local.run_record import record_run
from streams.local.worker_slots import Slot, acquire_slot
from streams.settings import Settings, WrongSetting, checked_address


class worker(faust.cli.worker.worker):
    """Start a worker."""

    slot: Slot
    """The slot, referenced so that its lock lasts as long as the process."""
    banner_task: asyncio.Task[None]
    """The task, referenced so that it is not collected."""

    def as_service(
        self,
        loop: asyncio.AbstractEventLoop,
        *args: Any,
        web_port: int | None = None,
        web_host: str | None = None,
        web_bind: str | None = None,
        **kwargs: Any,
    ) -> ServiceT:
        """Return the app, rebuilt for this Kafka and this slot."""
        settings = read_settings()
        for stop in (signal.SIGTERM, LEAVE_SIGNAL):  # the worker installs its handlers later
            signal.signal(stop, lambda *_: sys.exit(0))
        try:
            if settings.catalogue is not None:
                read_catalogue(settings.catalogue, allow_http=settings.allow_http_parties)
            bind = checked_bind(settings, web_bind)
            make_private(settings.directory)
            prepare_access(settings)
            servers = find_kafka(settings, self.say)
            self.slot = acquire_slot(settings.directory, port=web_port, host=web_host, bind=bind)
            record_run(settings.directory, self.slot.datadir.name, settings.speed_up)
        except SENTENCES as error:
            fail(error)
        slot = self.slot
        assert isinstance(self.app, WorkerApp)
        place = Place(slot.datadir, slot.port, slot.url, slot.instance_id, bind)
        if self.loglevel != "debug":
            quiet_logs()
        services = self.app.rebuild(servers, place)
        self.app = self._finalize_concrete_app(services.app)
        ready = services.engine.ready
        self.banner_task = loop.create_task(
            print_banner_when(ready, slot.url, servers, slot.datadir, settings.failpoints)
        )
        return super().as_service(loop, *args, web_port=None, web_host=None, web_bind=None, **kwargs)

    def on_worker_created(self, worker: mode.Worker) -> None:
        """Print one line instead of Faust's table of versions; the banner follows when the worker is ready."""
        self.say(f"Starting {self.slot.datadir.name}")


def checked_bind(settings: Settings, option: str | None) -> str:
    """Return the IP address to listen on: that of the option `--web-bind`, else that of the settings.

    Raises `WrongSetting` if a worker must not listen there.
    """
    bind = settings.bind if option is None else checked_address(option, "--web-bind")
    is_behind_tls = (settings.public_url or "").startswith("https://")
    if not (ip_address(bind).is_loopback or is_behind_tls or settings.plain_http):
        raise WrongSetting(
            f"{bind} is an address that other machines reach, and they would send their keys without TLS: set "
            "DABBAWALA_PUBLIC_URL to the https address of a proxy in front, or DABBAWALA_PLAIN_HTTP=1 if their network "
            "is private"
        )
    return bind
