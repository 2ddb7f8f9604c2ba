"""`faust -A streams.app topics`: create the topics that are missing, and check those that are there."""

import asyncio

from rich.console import Console
from rich.table import Table

from streams.app import engine, settings
from streams.cli.command import Command
from streams.cli.errors import CommandError
from streams.cli.kafka import find_kafka, use_kafka
from streams.engine import NoBroker, OldBroker, TopicsDiffer


class topics(Command):
    """Create the topics that are missing, and check that the others are as the tasks need them."""

    def perform(self) -> None:
        """Create, check, list."""
        use_kafka(find_kafka(settings, self.say))
        try:
            asyncio.run(engine.create_topics(settings.replication_factor))
        except (NoBroker, OldBroker, TopicsDiffer) as wrong:
            raise CommandError(str(wrong)) from None
        drawn = Table("topic", "partitions", "settings", title="topics")
        for spec in engine.topics():
            drawn.add_row(spec.name, str(spec.partitions), " ".join(f"{k}={v}" for k, v in spec.config.items()))
        Console().print(drawn)
