"""`dabbawala erase ORDER`: erase the personal data of an ended order, because its customer asked for it."""

from uuid import uuid4

import click
import msgspec

from streams.cli.client import ask
from streams.cli.output import echo
from streams.cli.param_types import ORDER
from topics.headers import IDEMPOTENCY_KEY


@click.command()
@click.argument("order", type=ORDER)
@click.option("--reason", metavar="TEXT", required=True, help="Why: who asked for it, and when.")
def erase(order: str, reason: str) -> None:
    """Erase the personal data of an order that has ended. It cannot be restored.

    The order leaves the tables, and its rows in the history become unreadable. The topics `orders` and `dead-letters`
    lose their copies by their retention, after one and four weeks.
    """
    answer = ask(
        f"/v1/orders/{order}/erased",
        method="POST",
        body=msgspec.json.encode({"reason": reason}),
        headers={"Content-Type": "application/json", IDEMPOTENCY_KEY: uuid4().hex},
    )
    match answer.get("outcome"):
        case None:
            echo(f"{order} will be erased: the command is accepted, but not applied yet. Run it again to see.")
        case "ABSORBED":
            echo(f"{order} was erased before.")
        case _:
            echo(f"{order} is erased.")
