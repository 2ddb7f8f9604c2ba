"""The tables of SQL: their columns, derived from the types of the rows, and the fields of the rows that these need.

A reader sends fields, as they are in the JSON of a row; the query engine makes the columns out of them. So a column
that a statement does not name costs nothing. `order` is a reserved word of SQL, so the order of a row is `order_id`.
"""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct, inspect

from exactly_once import decode_call
from exactly_once.task.transaction import Position as TopicPosition
from processors.dead_letters import DeadLetter
from processors.delivery import Delivery
from processors.dispatch import DriverRequestSeen, PendingDelivery, WaitingDriver
from processors.driver import Driver, ForgottenShift
from processors.history import Retired
from processors.order import FINAL_STAGES, STATUS, WAITS, Order
from processors.payment import Payment
from processors.ticket import Ticket
from processors.used_keys import UsedKey
from processors.workflow import JournalLine
from streams.calls.http_performer import ROWS as CALL_ROWS
from streams.web.masking import is_personal, masked, masked_field
from topics.order_updates import OrderStatus
from topics.orders import Placed
from topics.records import Record
from topics.restaurants import Restaurant
from topics.timer_rows import parse_timer_key

KEY, PARTITION, WORKER, AS_OF = "key", "_partition", "_worker", "_as_of_ms"
"""Fields that every row has: its key, and three that are the same for all rows of a partition."""
DURATIONS = frozenset({"preparation_ms", "travel_ms"})
"""Fields in milliseconds that are no times."""
RENAMED = {"order": "order_id", "at": "recorded_at", "at_ms": "recorded_ms", "window": "call_limit"}
"""Fields whose name is a word of SQL -> the name of their column."""
TIME = "TIMESTAMP WITH TIME ZONE"

RowType = type[Struct]
Mask = Callable[[Any], Any]
Reshape = Callable[[bytes, bytes, bool], tuple[str, bytes]]
"""Function from the key and value of a row, and whether to mask, to its key as text and the JSON of its fields."""


class Field(Struct, frozen=True, kw_only=True):
    """A field of a row, as a reader sends it."""

    name: str
    type: str
    """Its type in DuckDB."""
    default: bytes = b"null"
    """JSON of the value that a row without the field has."""
    annotation: Any = None
    mask: Mask | None = None
    """Mask over the decoded value; None if nothing in it is personal."""


class TableColumn(Struct, frozen=True, kw_only=True):
    """A column of a table."""

    name: str
    type: str
    fields: tuple[str, ...]
    """The fields that it is made of."""
    expression: str
    """The expression in SQL that makes it."""
    meaning: str = ""
    documented_by: tuple[RowType, str] | None = None
    """Type and field whose docstring has the meaning."""


class Table(Struct, frozen=True, kw_only=True):
    """A table of SQL."""

    name: str
    meaning: str
    columns: Mapping[str, TableColumn]
    fields: Mapping[str, Field]
    owners: frozenset[str] = frozenset()
    """Columns with the key of a row, or with its part before the first slash, which the worker looks rows up by."""
    reshape: Reshape | None = None
    """Function that makes the fields of a row; None if its value is their JSON."""
    path: str = ""
    """Path of the HTTP API that lists the rows; empty for rows of the tasks."""

    def fields_of(self, columns: Iterable[str]) -> list[str]:
        """Return the fields that these columns need of each row, sorted."""
        needed = {field for column in columns for field in self.columns[column].fields}
        return sorted(needed & self.fields.keys())


class View(Struct, frozen=True, kw_only=True):
    """A view over tables."""

    name: str
    meaning: str
    sql: str
    meanings: Mapping[str, str] = MappingProxyType({})


# -- columns out of types --------------------------------------------------------------------------------------------


def duckdb_type(kind: inspect.Type) -> str:
    """Return the type in DuckDB of the values of a type of msgspec; JSON if none fits."""
    match kind:
        case inspect.Metadata(type=inner):
            return duckdb_type(inner)
        case inspect.BoolType():
            return "BOOLEAN"
        case inspect.IntType():
            return "BIGINT"
        case inspect.FloatType():
            return "DOUBLE"
        case inspect.DateTimeType():
            return TIME
        case inspect.StrType() | inspect.EnumType() | inspect.LiteralType():
            return "VARCHAR"
        case inspect.UnionType(types=types):
            others = [each for each in types if not isinstance(each, inspect.NoneType)]
            return duckdb_type(others[0]) if len(others) == 1 else "JSON"
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return f"{duckdb_type(item)}[]"
        case inspect.StructType(array_like=False, tag=None, fields=fields):
            members = ", ".join(f"{field.encode_name} {duckdb_type(field.type)}" for field in fields)
            return f"STRUCT({members})"
        case _:
            return "JSON"


def _fields_of_type(kind: type[Struct]) -> Iterable[Field]:
    for field in msgspec.structs.fields(kind):
        yield Field(
            name=field.encode_name,
            type=duckdb_type(inspect.type_info(field.type)),
            default=_default(field),
            annotation=field.type,
            mask=_mask(kind, field.name),
        )


def _default(field: msgspec.structs.FieldInfo) -> bytes:
    if field.default is not NODEFAULT:
        return msgspec.json.encode(field.default)
    if field.default_factory is not NODEFAULT:
        return msgspec.json.encode(field.default_factory())
    return b"null"


def _mask(kind: type[Struct], field: str) -> Mask | None:
    return (lambda value: masked_field(kind, field, value)) if is_personal(kind, field) else None


def _column(name: str, type_: str, expression: str, *fields: str, meaning: str = "") -> TableColumn:
    return TableColumn(name=name, type=type_, fields=fields, expression=expression, meaning=meaning)


def _time_column(name: str, field: str, meaning: str) -> TableColumn:
    return _column(name, TIME, f'make_timestamptz(nullif("{field}", 0) * 1000)', field, meaning=meaning)


def _columns_of(field: Field, kind: type[Struct] | None) -> Iterable[TableColumn]:
    """Yield the column of a field, and for a time in milliseconds the same as a time."""
    name = RENAMED.get(field.name, field.name)
    if kind is not None and issubclass(kind, Record) and name == "id":
        name = "event_id"
    documented_by = None if kind is None else (kind, field.name)
    yield TableColumn(
        name=name, type=field.type, fields=(field.name,), expression=f'"{field.name}"', documented_by=documented_by
    )
    if name.endswith("_ms") and field.type == "BIGINT" and name not in DURATIONS:
        yield _time_column(f"{name.removesuffix('_ms')}_at", field.name, f"`{name}` as a time; NULL for 0.")


def _table(
    name: str,
    meaning: str,
    kinds: Iterable[type[Struct]] = (),
    more: Iterable[TableColumn] = (),
    owners: Iterable[str] = (),
    *,
    fields: Iterable[Field] = (),
    reshape: Reshape | None = None,
    path: str = "",
) -> Table:
    """Return a table with the fields of these types, and columns that follow from them."""
    known: dict[str, Field] = {}
    columns: dict[str, TableColumn] = {}
    if not path:
        known[KEY] = Field(name=KEY, type="VARCHAR")
        columns[KEY] = _column(KEY, "VARCHAR", f'"{KEY}"', KEY, meaning="Key of the row.")
    declared = [(field, kind) for kind in kinds for field in _fields_of_type(kind)]
    for field, kind in [*declared, *((field, None) for field in fields)]:
        if field.name in known and known[field.name].mask:
            continue
        known[field.name] = field
        columns |= {column.name: column for column in _columns_of(field, kind)}
    columns |= {column.name: column for column in more}
    if not path:
        columns["partition"] = _column("partition", "INTEGER", PARTITION, PARTITION, meaning="Partition of the row.")
        columns["worker"] = _column("worker", "VARCHAR", WORKER, WORKER, meaning="Worker that has the partition.")
    return Table(
        name=name,
        meaning=meaning,
        columns=columns,
        fields=known,
        owners=frozenset(owners),
        reshape=reshape,
        path=path,
    )


# -- rows that are not the JSON of their fields ----------------------------------------------------------------------


def _timer(key: bytes, value: bytes, _masked: bool) -> tuple[str, bytes]:
    timer = parse_timer_key(key)
    return timer.name, msgspec.json.encode({"due_ms": timer.due_ms, "payload": value.decode(errors="replace")})


def _position(key: bytes, value: bytes, _masked: bool) -> tuple[str, bytes]:
    position = TopicPosition.of(value)
    return key.decode(), msgspec.json.encode({"next_offset": position.offset, "topic_id": position.topic_id})


def _call(key: bytes, value: bytes, is_masked: bool) -> tuple[str, bytes]:
    call = decode_call(value)
    request = CALL_ROWS.decode(call.request)
    fields = {
        "kind": request.kind,
        "restaurant": request.restaurant,
        "pos_url": request.pos_url,
        "body": (masked(request) if is_masked else request).body,
        "attempts": call.attempt - 1,
        "next_try_ms": call.due_ms,
        "last_error": call.last_error,
    }
    return key.decode(), msgspec.json.encode(fields)


def _dead_letter(key: bytes, value: bytes, is_masked: bool) -> tuple[str, bytes]:
    letter = msgspec.json.decode(value, type=DeadLetter)
    shown = masked(letter) if is_masked else letter
    fields = {
        "at_ms": letter.at_ms,
        "topic": letter.origin_topic,
        "origin": letter.origin,
        "reason": shown.reason,
        "record_key": _text(shown.key),
        "record": _text(shown.value),
        "headers": {name: _text(content) for name, content in shown.headers},
        "signed": letter.signed,
        "complete": letter.complete,
    }
    return key.decode(), msgspec.json.encode(fields)


def _text(content: Any) -> Any:
    """Return bytes as text; the size of what is hidden as it is."""
    return content.decode(errors="replace") if isinstance(content, bytes) else content


# -- the tables ------------------------------------------------------------------------------------------------------


def _of_order(expression: str = f'"{KEY}"') -> TableColumn:
    return _column("order_id", "VARCHAR", expression, KEY, meaning="Id of the order.")


def _owner(name: str, meaning: str) -> TableColumn:
    return _column(name, "VARCHAR", f"split_part(\"{KEY}\", '/', 1)", KEY, meaning=meaning)


def _cases(values: Mapping[str, str]) -> str:
    return f"CASE stage {' '.join(f'WHEN {quoted(key)} THEN {quoted(value)}' for key, value in values.items())} END"


def quoted(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


_STATUSES = _cases({stage.value: status.value for stage, status in STATUS.items()})
_ENDED = ", ".join(quoted(status.value) for status in OrderStatus if status.ended)
_FINAL = ", ".join(quoted(stage.value) for stage in FINAL_STAGES)
_AGE = f'(CASE WHEN {_STATUSES} IN ({_ENDED}) THEN "updated_ms" ELSE {AS_OF} END - "placed_ms") / 1000'

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        _table(
            "orders",
            "Orders that have not left the tables.",
            (Order,),
            (
                _of_order(),
                _column("status", "VARCHAR", _STATUSES, "stage", meaning="Public status."),
                _column(
                    "age_s",
                    "DOUBLE",
                    _AGE,
                    "stage",
                    "placed_ms",
                    "updated_ms",
                    AS_OF,
                    meaning="Seconds since it was placed; if it has ended, until its last update.",
                ),
            ),
            ("key", "id", "order_id"),
        ),
        _table(
            "bodies",
            "Orders as they were placed. Personal data is masked.",
            (Placed,),
            (_of_order(),),
            ("key", "order_id"),
        ),
        _table(
            "payments", "Payments of the orders, and their refunds.", (Payment,), (_of_order(),), ("key", "order_id")
        ),
        _table("tickets", "Tickets of the orders at the restaurants.", (Ticket,), (_of_order(),), ("key", "order_id")),
        _table("deliveries", "Deliveries of the orders.", (Delivery,), (_of_order(),), ("key", "order_id")),
        _table(
            "journal",
            "Events that were applied to an order or refused, one a line.",
            (JournalLine,),
            (_owner("order_id", "Id of the order."),),
            ("key", "order_id"),
        ),
        _table("drivers", "Drivers. The position is masked.", (Driver,), (), ("key", "id")),
        _table(
            "dispatch",
            "Waiting drivers, pending deliveries and requests already seen, by region.",
            (WaitingDriver, PendingDelivery, DriverRequestSeen),
            (
                _column(
                    "kind",
                    "VARCHAR",
                    f"split_part(\"{KEY}\", '/', 2)",
                    KEY,
                    meaning="`driver`: waits for work; `pending`: a delivery without a driver; `seen`: a request.",
                ),
            ),
            ("region",),
        ),
        _table(
            "timers",
            "Pending timers.",
            more=(_owner("owner", "Order or driver that the timer is about."),),
            fields=(
                Field(name="due_ms", type="BIGINT"),
                Field(name="payload", type="VARCHAR"),
            ),
            reshape=_timer,
        ),
        _table(
            "calls",
            "Outgoing calls without an answer. The body is masked.",
            more=(_owner("order_id", "Id of the order."),),
            owners=("key", "order_id"),
            fields=(
                Field(name="kind", type="VARCHAR"),
                Field(name="restaurant", type="VARCHAR"),
                Field(name="pos_url", type="VARCHAR"),
                Field(name="body", type="JSON"),
                Field(name="attempts", type="BIGINT"),
                Field(name="next_try_ms", type="BIGINT"),
                Field(name="last_error", type="VARCHAR"),
            ),
            reshape=_call,
        ),
        _table(
            "positions",
            "Offset of the next record to apply, of each source topic and partition.",
            more=(_column("topic", "VARCHAR", f'"{KEY}"', KEY, meaning="Source topic."),),
            fields=(Field(name="next_offset", type="BIGINT"), Field(name="topic_id", type="VARCHAR")),
            reshape=_position,
        ),
        _table(
            "dead_letters",
            "Records that could not be applied. Keys, values and headers are masked.",
            fields=(
                Field(name="at_ms", type="BIGINT"),
                Field(name="topic", type="VARCHAR"),
                Field(name="origin", type="VARCHAR"),
                Field(name="reason", type="VARCHAR"),
                Field(name="record_key", type="JSON"),
                Field(name="record", type="JSON"),
                Field(name="headers", type="JSON"),
                Field(name="signed", type="BOOLEAN"),
                Field(name="complete", type="BOOLEAN"),
            ),
            reshape=_dead_letter,
        ),
        _table(
            "history",
            "Orders that have left the tables.",
            (Retired,),
            (_of_order(),),
            ("key", "order_id"),
        ),
        _table("forgotten_shifts", "Highest shift of the drivers that a partition has forgotten.", (ForgottenShift,)),
        _table("used_keys", "Idempotency keys that stand for an order.", (UsedKey,), (), ("key",)),
        _table("restaurants", "The catalogue.", (Restaurant,), (), ("key", "restaurant")),
        _table(
            "tasks",
            "The task of each partition, from all workers.",
            fields=(
                Field(name="partition", type="INTEGER"),
                Field(name="worker", type="VARCHAR"),
                Field(name="state", type="VARCHAR"),
                Field(name="lag", type="BIGINT"),
                Field(name="commits", type="BIGINT"),
                Field(name="resets", type="BIGINT"),
                Field(name="calls", type="BIGINT"),
                Field(name="backlog", type="BIGINT"),
                Field(name="topics", type="JSON"),
            ),
            path="/v1/tasks#tasks",
        ),
        _table(
            "workers",
            "Workers, with their counters.",
            fields=(
                Field(name="worker", type="VARCHAR"),
                Field(name="ready", type="BOOLEAN"),
                Field(name="counters", type="JSON"),
            ),
            path="/v1/tasks#workers",
        ),
        _table(
            "parties",
            "Destinations of calls, as each worker sees them.",
            fields=(
                Field(name="party", type="VARCHAR"),
                Field(name="host", type="VARCHAR"),
                Field(name="worker", type="VARCHAR"),
                Field(name="state", type="VARCHAR"),
                Field(name="running", type="BIGINT"),
                Field(name="waiting", type="BIGINT"),
                Field(name="window", type="BIGINT"),
                Field(name="failures", type="BIGINT"),
                Field(name="silent_s", type="DOUBLE"),
                Field(name="tried_in_s", type="DOUBLE"),
                Field(name="last_error", type="VARCHAR"),
            ),
            path="/v1/parties#parties",
        ),
    )
}
"""Name -> table."""

_WAITS = _cases({stage.value: wait.waits_for for stage, wait in WAITS.items() if stage not in FINAL_STAGES})

VIEWS: Mapping[str, View] = {
    view.name: view
    for view in (
        View(
            name="waiting",
            meaning="Orders with the event that they wait for, and the call that is open meanwhile.",
            sql=f"""
                SELECT w.order_id, w.status, w.waits_for, w.since, epoch(now()) - epoch(w.since) AS age_s,
                       w.needs_person, c.attempts, c.next_try_at, c.last_error
                FROM (
                    SELECT order_id, status, needs_person, item.waits_for AS waits_for,
                           make_timestamptz(item.since_ms * 1000) AS since
                    FROM (SELECT order_id, status, true AS needs_person, unnest(attention) AS item FROM orders)
                    UNION ALL
                    SELECT order_id, status, false, {_WAITS}, waits_since_at
                    FROM orders WHERE len(attention) = 0 AND stage NOT IN ({_FINAL})
                ) AS w
                LEFT JOIN (
                    SELECT order_id, max(attempts) AS attempts, min(next_try_at) AS next_try_at,
                           any_value(nullif(last_error, '')) AS last_error
                    FROM calls GROUP BY order_id
                ) AS c USING (order_id)
            """,
            meanings={
                "waits_for": "The awaited event.",
                "since": "Start of the wait.",
                "age_s": "Seconds since then.",
                "needs_person": "True if the wait takes too long.",
                "attempts": "Attempts made of the open call; NULL without one.",
                "next_try_at": "Time of its next attempt.",
                "last_error": "Error of its last attempt.",
            },
        ),
        View(
            name="open_orders",
            meaning="Orders that have not ended, with payment, ticket and delivery.",
            sql=f"""
                SELECT o.order_id, o.status, o.restaurant, o.region, b.provider, b.display_number, b.total, b.currency,
                       o.placed_at, o.eta_at, o.age_s, greatest(0, epoch(now()) - epoch(o.eta_at)) AS late_s,
                       p.stage AS payment, t.stage AS ticket, d.stage AS delivery,
                       coalesce(d.driver, o.driver) AS driver,
                       len(o.attention) > 0 AS needs_person, o.partition, o.worker
                FROM orders AS o
                LEFT JOIN bodies AS b USING (order_id)
                LEFT JOIN payments AS p USING (order_id)
                LEFT JOIN tickets AS t USING (order_id)
                LEFT JOIN deliveries AS d USING (order_id)
                WHERE o.status NOT IN ({_ENDED})
            """,
            meanings={
                "late_s": "Seconds since its ETA; 0 if that has not passed.",
                "payment": "Stage of the payment.",
                "ticket": "Stage of the ticket.",
                "delivery": "Stage of the delivery.",
                "needs_person": "True if a wait takes too long.",
            },
        ),
    )
}
"""Name -> view."""
