"""A stuck order: an operator finds it, reads why, and frees it with the commands that a newcomer types."""

import json
import shlex
import sys

import pytest

from tests.flow.client import Client, an_order, order_id
from tests.support.stack import Stack, run_command, switch_off, switch_on
from topics.restaurants import Restaurant


def dabbawala(stack: Stack, line: str) -> str:
    """Run a command line of `dabbawala` against the stack; return its output."""
    status, printed, error = run_command([sys.executable, "-m", "streams.cli", *shlex.split(line)], stack.environment)
    assert status == 0, f"{line}: {error}"
    return printed


async def test_an_order_of_a_silent_restaurant_is_found_and_freed(
    client: Client, stack: Stack, tiffin: Restaurant, unique: str
) -> None:
    order, other = order_id(unique), order_id(f"{unique}-later")
    switch_on(stack.pos_url, **{f"silent@{tiffin.restaurant}": 1})
    try:
        assert (await client.place(an_order(tiffin, unique))).status_code == 201

        async def failed() -> bool:
            found = await client.get("/v1/workflows", waiting_on="restaurant", limit=1000)
            row = next((row for row in found["workflows"] if row["id"] == order), None)
            return row is not None and row["call"] is not None and row["call"]["attempts"] >= 1

        await client.until(failed, "the call to the restaurant has failed once")
        listed = dabbawala(stack, "workflows list --waiting-on restaurant --for 1s --oldest-first --limit 1000")
        [line] = [line for line in listed.splitlines() if line.startswith(order)]
        assert "no answer within 8 s" in line
        assert f"dabbawala calls retry {order}/prepare" in line
        assert order not in dabbawala(stack, "workflows list --waiting-on driver --limit 1000")
        assert order not in dabbawala(stack, "workflows list --waiting-on restaurant --for 1h --limit 1000")

        page = dabbawala(stack, f"workflows describe {order}")
        assert "the restaurant's answer, for" in page
        assert "TicketRequested ticket ASKED" in page
        assert f"no answer to {order}/prepare" in page
        assert "no answer within 8 s" in page
        assert f"dabbawala calls retry {order}/prepare" in page

        dabbawala(stack, f"calls abandon {order}/prepare --reason 'a test'")  # else it goes on once the fault is off
        assert order in dabbawala(stack, "workflows list --waiting-on operator --limit 1000")
        page = dabbawala(stack, f"workflows describe {order}")
        assert "PrepareAbandoned ticket ASKED  by test-operator: a test" in page
        [command] = [line.partition("  ")[0] for line in page.splitlines() if line.startswith("dabbawala ")]
    finally:
        switch_off(stack.pos_url)
    assert "is due now" in dabbawala(stack, command.removeprefix("dabbawala "))
    await client.reaches(order, "DELIVERED")

    described = json.loads(dabbawala(stack, f"workflows describe {order} --json"))
    assert described["waiting"] is None
    assert described["remedies"] == []
    roots = [line["event"] for line in described["journal"] if line["cause"] is None]
    assert roots == ["OrderPlaced"]
    assert described["calls"] == []
    assert json.loads(dabbawala(stack, f"kv get orders {order}"))["row"]["stage"] == "DELIVERED"
    with pytest.raises(AssertionError, match="has no row"):
        dabbawala(stack, f"kv get orders {other}")
    listed = dabbawala(stack, f"kv list journal --prefix {order}/00000 --json")
    keys = [row["key"] for row in json.loads(listed)["rows"]]
    assert keys == [f"{order}/{number:06d}" for number in range(1, 10)], "the first nine lines"
