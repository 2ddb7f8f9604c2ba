"""Rows of tables: `dabbawala kv`."""

import json

from tests.streams.cli.conftest import FakeWorker, Run, problem

ROW = {"partition": 3, "key": "my-shop:1", "row": {"stage": "CREATED", "version": 7}}


def test_a_row_is_json_with_key_and_partition(worker: FakeWorker, run: Run) -> None:
    worker.says("/table/orders/my-shop:1", {"table": "orders", "rows": [ROW]})
    done = run("kv", "get", "orders", "my-shop:1")
    assert done.status == 0
    assert json.loads(done.printed) == {"table": "orders", **ROW}
    assert worker.asked[0].query["exact"] == "true"
    assert "reveal" not in worker.asked[0].query


def test_each_partitions_position_is_printed(worker: FakeWorker, run: Run) -> None:
    rows = [{"partition": number, "key": "dabbawala.orders", "row": {"offset": number}} for number in range(2)]
    worker.says("/table/positions/dabbawala.orders", {"table": "positions", "rows": rows})
    printed = json.loads(run("kv", "get", "positions", "dabbawala.orders").printed)
    assert [row["partition"] for row in printed] == [0, 1]


def test_a_key_with_slashes_is_one_part_of_the_path(worker: FakeWorker, run: Run) -> None:
    worker.says("/table/dead_letters/3/17", {"table": "dead_letters", "rows": [ROW]})
    assert run("kv", "get", "dead_letters", "3/17").status == 0


def test_a_missing_row_exits_with_1(worker: FakeWorker, run: Run) -> None:
    worker.says("/table/orders/my-shop:2", {"table": "orders", "rows": []})
    assert run("kv", "get", "orders", "my-shop:2") == (1, "", "Table orders has no row of 'my-shop:2'.\n")


def test_an_unknown_table_is_answered_with_the_tables(worker: FakeWorker, run: Run) -> None:
    for path in ("/table/order/my-shop:1", "/table/order/"):
        worker.says(path, problem(404, "there is no table order; there are: bodies, orders"))
    sentence = "There is no table order; there are: bodies, orders.\n"
    assert run("kv", "get", "order", "my-shop:1") == (1, "", sentence)
    assert run("kv", "list", "order") == (1, "", sentence)


def test_a_reading_of_personal_data_has_a_reason(worker: FakeWorker, run: Run) -> None:
    worker.says("/table/bodies/my-shop:1", {"table": "bodies", "rows": [ROW]})
    assert run("kv", "get", "bodies", "my-shop:1", "--reveal", "--reason", "complaint 4711").status == 0
    assert worker.asked[0].query | {"reveal": "true", "reason": "complaint 4711"} == worker.asked[0].query


def test_a_list_has_the_prefix_and_ends_at_the_limit(worker: FakeWorker, run: Run) -> None:
    rows = [{"partition": number % 2, "key": f"my-shop:{number}", "row": {"n": number}} for number in range(3)]
    worker.says("/table/orders/", {"table": "orders", "rows": rows})
    done = run("kv", "list", "orders", "--prefix", "my-shop:", "--limit", "2")
    assert worker.asked[0].query == {"prefix": "my-shop:", "limit": "3"}
    assert [line.split()[0] for line in done.printed.splitlines()] == ["orders", "key", "my-shop:0", "my-shop:2"]
    assert done.error == "There are more rows than 2: use --prefix, or a higher --limit.\n"
    done = run("kv", "list", "orders", "--limit", "3", "--json")
    assert (len(json.loads(done.printed)["rows"]), done.error) == (3, "")


def test_without_a_table_the_tables_are_listed(worker: FakeWorker, run: Run) -> None:
    worker.says("/table/", {"tables": [{"name": "orders", "help": "Order id -> the order."}]})
    assert "Order id -> the order." in run("kv", "list").printed
    assert run("kv", "list", "--json").status == 0


def test_an_empty_list_is_no_error(worker: FakeWorker, run: Run) -> None:
    worker.says("/table/orders/", {"table": "orders", "rows": []})
    assert run("kv", "list", "orders") == (0, "", "Table orders is empty.\n")
    assert run("kv", "list", "orders", "--prefix", "x") == (0, "", "Table orders has no such row.\n")
