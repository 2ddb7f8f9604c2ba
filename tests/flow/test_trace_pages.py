"""The trace of an order from its journal: as JSON, as a page and as a tree in the terminal."""

import sys

from streams.tracing.ids import trace_id
from tests.flow.client import Client, an_order, order_id
from tests.support.stack import run_command
from topics.restaurants import Restaurant


async def test_a_trace_is_drawn_without_any_collector(client: Client, tiffin: Restaurant, unique: str) -> None:
    order = order_id(unique)
    answer = await client.place(an_order(tiffin, unique))
    assert "traceresponse" not in answer.headers
    await client.reaches(order, "DELIVERED")
    found = await client.get(f"/traces/{order}")
    assert (found["trace_id"], found["sampled"]) == (f"{trace_id(order):032x}", False)
    spans = found["spans"]
    assert [span["name"] for span in spans if "parent" not in span] == ["order placed"]
    ids = [span["id"] for span in spans]
    assert all(span["parent"] in ids[:number] for number, span in enumerate(spans) if number)
    assert {"call charge", "answer Charged", "call prepare", "find a driver, attempt 1", "process DriverAssigned"} <= {
        span["name"] for span in spans
    }
    assert all(span["end"] for span in spans), "nothing goes on after the end"
    page = await client.http.get(f"/traces/{order}", headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert page.text.count("<rect") == len(spans)
    assert "<script" not in page.text
    command = [sys.executable, "-m", "streams.cli", "trace", order]
    status, printed, error = run_command(command, {**client.stack.environment, "DABBAWALA_URL": client.stack.url})
    assert status == 0, error
    assert "find a driver, attempt 1" in printed
    assert "delivery PICKED_UP → DELIVERED; order IN_DELIVERY → DELIVERED\n" in printed, "no line is cut or padded"
    assert (await client.http.get("/traces/my-shop:nothing")).status_code == 404
