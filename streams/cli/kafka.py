"""Which Kafka a command works with: the one it is told of, else the embedded one."""

import warnings
from collections.abc import Callable

from faust.exceptions import AlreadyConfiguredWarning
from yarl import URL

from streams.app import app, engine
from streams.settings import Settings


def find_kafka(settings: Settings, progress: Callable[[str], None]) -> str:
    """The bootstrap servers: those of the settings, else those of the embedded broker, started unless it runs."""
    if settings.bootstrap_servers is None:
        from streams.embedded import kafka  # needs Java's package, which a worker of a cluster does without

        return kafka.ensure(settings.directory, progress)
    return settings.bootstrap_servers


def use_kafka(bootstrap_servers: str) -> None:
    """Tell the app, which was made before the address was known."""
    brokers = [URL(f"kafka://{server.strip()}") for server in bootstrap_servers.split(",")]
    with warnings.catch_warnings():
        # that the app has been configured: nothing has connected to its brokers yet
        warnings.simplefilter("ignore", AlreadyConfiguredWarning)
        app.conf.broker = app.conf.broker_consumer = app.conf.broker_producer = brokers
    engine.transport.url = brokers
