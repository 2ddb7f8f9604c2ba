"""`topics list` and `topics check`: the topics that the tasks need, compared with those of Kafka."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import click
from aiokafka.errors import KafkaError

from exactly_once import BrokerTooOld, BrokerUnreachable, ConfigMismatch, TopicMismatch
from streams.cli.errors import EXIT_FALSE, CommandError
from streams.cli.kafka import services, services_with_kafka
from streams.cli.output import echo, json_option, print_json, print_table, text

T = TypeVar("T")
MAX_NAMED = 3
"""Topics with the same difference that a row names; `--json` has them all."""


@click.group()
def topics() -> None:
    """List the topics that the tasks need; check and repair them."""


@topics.command("list")
@json_option
def list_topics(as_json: bool) -> None:
    """List the topics that the tasks need, with their settings, without contacting Kafka."""
    engine = services().engine
    if as_json:
        print_json({"topics": [asdict(spec) for spec in engine.topics()]})
        return
    rows = (
        [text(spec.name), text(spec.partitions), text(" ".join(f"{k}={v}" for k, v in spec.config.items()))]
        for spec in engine.topics()
    )
    print_table("topics", ("topic", "partitions", "settings"), rows)


@topics.command("check")
@click.option("--create", is_flag=True, help="Create missing topics, and correct wrong settings.")
@json_option
def check(create: bool, as_json: bool) -> None:
    """Compare the topics, partitions, settings and brokers with what the tasks need.

    The exit code is 1 if a difference remains. The number of partitions is never changed.
    """
    worker = services_with_kafka()
    engine, settings = worker.engine, worker.settings
    differences = _ask(engine.compare_topics())
    if create and differences:
        _ask(engine.repair_topics(settings.replication_factor, differences))
        before, differences = differences, _ask(engine.compare_topics())
        for mended in (each for each in before if each not in differences):
            done = "created" if mended.what == "topic" else f"{mended.what}={mended.needed} (it was {mended.found})"
            echo(f"{mended.where}: {done}", err=as_json)
    if as_json:
        print_json({"differences": [asdict(each) for each in differences]})
    elif differences:
        _print(differences)
    else:
        echo(f"All {len(engine.topics())} topics have the right settings.")
    if differences:
        click.get_current_context().exit(EXIT_FALSE)


def _ask(what: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(what)
    except (BrokerUnreachable, BrokerTooOld, TopicMismatch) as wrong:
        raise CommandError(str(wrong)) from None
    except KafkaError as wrong:
        raise CommandError(f"Kafka failed to answer ({wrong!r}): try again in a moment.") from None


def _print(differences: Sequence[ConfigMismatch]) -> None:
    """Print one row for all topics or brokers with the same difference."""
    places: dict[tuple[str, ...], list[str]] = {}
    for each in differences:
        same = (each.what, each.found, each.needed, each.advice or "topics check --create")
        places.setdefault(same, []).append(each.where)
    heads = ("where", "what", "found", "needed", "what to do")
    print_table("differences", heads, ([*map(text, (_named(names), *same))] for same, names in places.items()))


def _named(places: Sequence[str]) -> str:
    """Name the first places, and count the others."""
    if len(places) <= MAX_NAMED:
        return ", ".join(places)
    return f"{', '.join(places[: MAX_NAMED - 1])} and {len(places) - MAX_NAMED + 1} others"
