"""`topics list` and `topics check`: the topics that have to exist, and whether they are as the tasks need them."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click
from aiokafka.errors import KafkaError

from streams.cli.errors import NOT_SO, CommandError
from streams.cli.showing import json_option, print_json, print_table, text

if TYPE_CHECKING:
    from streams.engine import Difference

T = TypeVar("T")


@click.group()
def topics() -> None:
    """Look at the topics, create and mend them."""


@topics.command("list")
@json_option
def list_topics(as_json: bool) -> None:
    """List the topics that have to exist, with their settings. Asks no broker."""
    from streams.app import engine  # a command that is not called does without Faust

    if as_json:
        print_json({"topics": [asdict(spec) for spec in engine.topics()]})
        return
    rows = (
        [text(spec.name), text(spec.partitions), text(" ".join(f"{k}={v}" for k, v in spec.config.items()))]
        for spec in engine.topics()
    )
    print_table("topics", ("topic", "partitions", "settings"), rows)


@topics.command("check")
@click.option("--create", is_flag=True, help="Create what is missing, and set what is set otherwise.")
@json_option
def check(create: bool, as_json: bool) -> None:
    """Say what is missing or otherwise than it has to be: topics, numbers of partitions, settings, brokers.

    Exits with 0 if everything is as it has to be, 1 if not. The number of partitions is never changed.
    """
    from streams.app import engine, settings

    _find_kafka()
    differences = _ask(engine.compare_topics())
    if create and differences:
        _ask(engine.mend_topics(settings.replication_factor, differences))
        before, differences = differences, _ask(engine.compare_topics())
        for mended in (each for each in before if each not in differences):
            done = "created" if mended.what == "topic" else f"{mended.what}={mended.needed} (it was {mended.found})"
            click.echo(f"{mended.where}: {done}", err=as_json)
    if as_json:
        print_json({"differences": [asdict(each) for each in differences]})
    elif differences:
        _print(differences)
    else:
        click.echo(f"The {len(engine.topics())} topics are as they have to be.")
    if differences:
        click.get_current_context().exit(NOT_SO)


def _find_kafka() -> None:
    from streams.app import settings
    from streams.cli.command import SENTENCES
    from streams.cli.kafka import find_kafka, use_kafka

    try:
        use_kafka(find_kafka(settings, lambda progress: click.echo(progress, err=True)))
    except SENTENCES as wrong:
        raise CommandError(str(wrong)) from None


def _ask(what: Coroutine[Any, Any, T]) -> T:
    from streams.engine import NoBroker, OldBroker, TopicsDiffer

    try:
        return asyncio.run(what)
    except (NoBroker, OldBroker, TopicsDiffer) as wrong:
        raise CommandError(str(wrong)) from None
    except KafkaError as wrong:
        raise CommandError(f"Kafka does not answer as it should ({wrong!r}): try again when it does.") from None


def _print(differences: "Sequence[Difference]") -> None:
    heads = ("where", "what", "found", "needed", "what to do")
    rows = (
        [*map(text, (each.where, each.what, each.found, each.needed, each.advice or "topics check --create"))]
        for each in differences
    )
    print_table("not as it has to be", heads, rows)
