"""`dabbawala keys`: keys of the HTTP API. They change files and need no worker; workers reread them within a second."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.text import Text

from streams.access.keys import ANY, MAX_RATE, RATES, Role, StoredKey, WrongKeys, add_key, read_keys, revoke_key
from streams.access.local_keys import make_local_keys
from streams.cli.errors import CommandError
from streams.cli.output import counted, echo, json_option, print_json, print_table, text, when
from streams.settings import Settings, WrongSetting

ROLES = [role.value for role in Role]


@click.group()
def keys() -> None:
    """Make, list and revoke keys of the HTTP API.

    The file (DABBAWALA_KEYS) has only the hashes of keys. Workers reread it within a second after it changes.
    """


@keys.command()
def init() -> None:
    """Make the secret of the workers, and a local key of each role, where they are missing."""
    settings = _settings()
    try:
        made = make_local_keys(settings.directory, settings.keys, settings.secret_file)
    except (WrongKeys, OSError) as error:
        raise CommandError(str(error)) from None
    for file in made:
        echo(str(file))
    echo(f"{counted(len(made), 'file')} made. Only you may read them.", err=True)


@keys.command()
@click.argument("role", type=click.Choice(ROLES))
@click.argument("party", default=ANY)
@click.option("--name", help="Name of the key, for the journal and `revoke`.  [default: PARTY and the time]")
@click.option("--days", type=click.IntRange(1, 3650), metavar="DAYS", help="Days for which the key is valid.")
@click.option(
    "--rate",
    type=click.FloatRange(0, MAX_RATE, min_open=True),
    metavar="RATE",
    help="Requests a second that a worker accepts from it.  [default: that of the role]",
)
def new(role: str, party: str, name: str | None, days: int | None, rate: float | None) -> None:
    """Make a key of a ROLE for a PARTY, and print it. It cannot be shown again.

    PARTY is the id of the provider, restaurant or driver, or of the payment provider; an id that ends with * stands for
    all that begin so. Operators and monitors need none.
    """
    now = datetime.now(UTC)
    until = None if days is None else now + timedelta(days=days)
    chosen = name or f"{role if party == ANY else party.rstrip(ANY)}-{now:%Y%m%d-%H%M%S}"
    try:
        echo(add_key(_file(), Role(role), party, chosen, until, rate))
    except (WrongKeys, OSError) as error:
        raise CommandError(str(error)) from None
    echo(f"The key {chosen} is valid in a second. Next: send it as `Authorization: Bearer KEY`.", err=True)


@keys.command(name="list")
@json_option
def list_keys(as_json: bool) -> None:
    """List the keys, without the keys themselves."""
    stored = _read()
    if as_json:
        shown = ("name", "role", "party", "until", "rate")
        print_json({"keys": [{name: getattr(key, name) for name in shown} for key in stored]})
        return
    print_table("keys", ("name", "role", "party", "rate", "until"), [_row(key) for key in stored])


def _row(key: StoredKey) -> list[Text]:
    rate = RATES[key.role] if key.rate is None else key.rate
    end = when(key.until) if key.until else text("no end")
    return [text(key.name), text(key.role), text(key.party), text(f"{rate:g}/s"), end]


@keys.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke the key with a NAME. Workers refuse it within a second."""
    try:
        revoke_key(_file(), name)
    except (WrongKeys, OSError) as error:
        raise CommandError(str(error)) from None
    echo(f"{name} is revoked.")


def _settings() -> Settings:
    try:
        return Settings.from_environment()
    except WrongSetting as wrong:
        raise CommandError(str(wrong)) from None


def _file() -> Path:
    return _settings().keys


def _read() -> list[StoredKey]:
    try:
        return read_keys(_file())
    except WrongKeys as wrong:
        raise CommandError(str(wrong)) from None
