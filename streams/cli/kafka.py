"""The Kafka that a command works with: the one in the settings, else the embedded one."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from streams.catalogue.file import WrongCatalogue
from streams.cli.errors import CommandError
from streams.cli.output import echo
from streams.local.errors import SetUpError
from streams.settings import Settings, WrongSetting

if TYPE_CHECKING:
    from streams.services import Services

SENTENCES = (CommandError, SetUpError, WrongCatalogue, WrongSetting)
"""Errors whose message is meant for the person at the keyboard."""


def read_settings() -> Settings:
    """Return the settings of the environment. Raises `CommandError` for one that cannot be used."""
    try:
        return Settings.from_environment()
    except WrongSetting as wrong:
        raise CommandError(str(wrong)) from None


def find_kafka(settings: Settings, progress: Callable[[str], None]) -> str:
    """Return the bootstrap servers of the settings, else those of the embedded broker, started unless it runs."""
    if settings.bootstrap_servers is None:
        broker = import_module("streams.local.kafka.broker")  # needs Java's package, which is optional
        servers: str = broker.ensure(settings.directory, progress)
        return servers
    return settings.bootstrap_servers


def services() -> "Services":
    """Return the parts of a worker, for a command that inspects what it declares. Asks no broker."""
    return _build(read_settings())


def services_with_kafka() -> "Services":
    """Return the parts of a worker, for a command that asks Kafka; starts the embedded Kafka if it is needed.

    Raises `CommandError` if Kafka cannot be started.
    """
    settings = read_settings()
    try:
        servers = find_kafka(settings, lambda progress: echo(progress, err=True))
    except SENTENCES as wrong:
        raise CommandError(str(wrong)) from None
    return _build(msgspec.structs.replace(settings, bootstrap_servers=servers))


def _build(settings: Settings) -> "Services":
    module = import_module("streams.build")  # Faust takes a second to import; most commands do without it
    made: Services = module.build(settings)
    return made
