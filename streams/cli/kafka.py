"""The Kafka that a command works with: the one in the settings, else the embedded one. The worker made for it.

A worker is imported when a command builds one: Faust takes a second to import, and most commands do without it.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from streams.access.keys import WrongKeys
from streams.access.party_proofs import WrongPartySecrets
from streams.access.tokens import WrongSecret
from streams.catalogue.file import WrongCatalogue
from streams.cli.errors import CommandError
from streams.cli.output import echo
from streams.local.errors import SetUpError
from streams.local.kafka import broker
from streams.settings import Settings, WrongSetting

if TYPE_CHECKING:
    from streams.services import Services

SENTENCES = (CommandError, SetUpError, WrongCatalogue, WrongKeys, WrongPartySecrets, WrongSecret, WrongSetting)
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
        return broker.ensure(settings.directory, progress)
    return settings.bootstrap_servers


def services() -> "Services":
    """Return the parts of a worker with the settings of the environment. Asks no broker.

    Raises `CommandError` for a setting that cannot be used.
    """
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
    build: Callable[[Settings], Services] = import_module("streams.build").build
    try:
        return build(settings)
    except WrongSetting as wrong:
        raise CommandError(str(wrong)) from None
