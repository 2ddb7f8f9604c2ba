"""AsyncAPI document of the topics, made from the families, the record types and the docstrings of their modules.

A channel is a topic, and each record type of it is a message. The application is Dabbawala: it sends to every topic,
and receives from those on whose records it acts.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from streams.reference.examples import example_of
from streams.reference.schemas import record_types, schemas_of
from topics import dead_letters
from topics.families import DEAD_LETTERS, FAMILIES, ORDER_UPDATES, RESTAURANTS, SOURCES, Family, topic_name
from topics.headers import IDEMPOTENCY_KEY

BINDING = {"bindingVersion": "0.5.0"}
DESCRIPTION = (
    "The Kafka topics of Dabbawala. Keys are UTF-8 ids, partitioned by murmur2 as Java's clients do: librdkafka "
    "needs `partitioner=murmur2_random`. A record in the wrong partition is forwarded to the right one. Readers use "
    "`isolation.level=read_committed`, and ignore unknown fields: later versions add optional ones."
)
FROM_OUTSIDE = "from-outside"
"""Tag of the topics that outside parties may write."""
TEXT = {"type": "string"}
TRACE = {"traceparent": {**TEXT, "description": "W3C Trace Context: one trace per order."}}
CLOUD_EVENT = {
    "ce_specversion": {"const": "1.0"},
    "ce_id": {**TEXT, "description": "Id of the event."},
    "ce_type": {"const": "dabbawala.OrderUpdated"},
    "ce_source": TEXT,
    "ce_subject": {**TEXT, "description": "Id of the order."},
    "ce_time": {"type": "string", "format": "date-time"},
    "ce_sequence": {**TEXT, "description": "Version of the order."},
    "content-type": {"const": "application/json"},
}
"""Headers of CloudEvents 1.0 in Kafka's binary content mode."""
LETTER = dict.fromkeys(
    (
        dead_letters.REASON,
        dead_letters.SIGNATURE,
        dead_letters.CUT,
        dead_letters.TOPIC,
        dead_letters.PARTITION,
        dead_letters.OFFSET,
        dead_letters.TIMER,
        dead_letters.CALL,
        dead_letters.REQUEST,
        dead_letters.BROKE_DOWN,
        dead_letters.COMMAND,
        dead_letters.LETTER,
        dead_letters.COMMAND_SIGNATURE,
    ),
    TEXT,
)
"""Headers of dead letters and of commands about them."""


def document(prefix: str, partitions: int) -> dict[str, Any]:
    """Return the document of the topics with this prefix, each with so many partitions."""
    schemas, components = schemas_of(record_types().values())
    of = dict(zip(record_types(), schemas, strict=True))
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Dabbawala",
            "version": "1",
            "description": DESCRIPTION,
            "license": {"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            family.name: _channel(family, topic_name(family.name, prefix), partitions, of, components)
            for family in FAMILIES
        },
        "operations": {name: made for family in FAMILIES for name, made in _operations(family)},
        "components": {"schemas": components},
    }


def _channel(
    family: Family, topic: str, partitions: int, schemas: Mapping[str, Any], components: Mapping[str, Any]
) -> dict[str, Any]:
    text, key, writers, readers = _documented(family)
    messages = _messages(family, key, schemas, components)
    if family is DEAD_LETTERS:
        messages = {"DeadLetter": _letter()}
    return {
        "address": topic,
        "title": family.name,
        "summary": f"Written by {writers}. Read by {readers}.",
        "description": text,
        "messages": messages,
        "tags": [{"name": FROM_OUTSIDE}] if is_from_outside(family) else [],
        "bindings": {
            "kafka": {"topic": topic, "partitions": partitions, "topicConfiguration": _config(family)} | BINDING
        },
    }


def is_from_outside(family: Family) -> bool:
    """Return whether outside parties may write to the topics of a family."""
    return family is RESTAURANTS or family.config.get("message.timestamp.type") == "LogAppendTime"


def _documented(family: Family) -> tuple[str, str, str, str]:
    """Return the text of a family's module without its table, and of the table the key, the writers and the readers."""
    module = sys.modules[f"topics.{family.name.replace('-', '_')}"]
    text = inspect.cleandoc(module.__doc__ or "").replace("``", "`")
    row = re.search(rf"^\| {family.name}\b[^|]*\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert row, f"{module.__name__} has no table of its topic"
    return re.sub(r"(^\|.*\n?)+\n?", "", text, flags=re.MULTILINE).strip(), row[1], row[2], row[3]


def _messages(
    family: Family, key: str, schemas: Mapping[str, Any], components: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    headers = TRACE | (CLOUD_EVENT if family is ORDER_UPDATES else {})
    found = {}
    for name, record in record_types().items():
        owner, _, kind = name.partition(".")
        if owner != family.name:
            continue
        meaning, _, more = inspect.cleandoc(record.__doc__ or "").replace("``", "`").partition("\n\n")
        found[kind] = {
            "name": kind,
            "title": kind,
            "summary": " ".join(meaning.split()),
            **({"description": more} if more else {}),
            "headers": {"type": "object", "properties": headers | _more_headers(name)},
            "payload": schemas[name],
            "examples": [{"payload": example_of(schemas[name], components)}],
            "bindings": {"kafka": {"key": {"type": "string", "description": key}} | BINDING},
        }
    return found


def _more_headers(name: str) -> dict[str, Any]:
    if name != "orders.Placed":
        return {}
    return {IDEMPOTENCY_KEY: {**TEXT, "description": "Source of the external id of an order that has none."}}


def _letter() -> dict[str, Any]:
    """Return the message of a dead letter, which has the bytes of the record, or of a command about one."""
    return {
        "name": "DeadLetter",
        "title": "DeadLetter",
        "summary": "A record that could not be applied, or a command about one.",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "properties": LETTER},
        "payload": {"description": "The bytes of the record."},
        "bindings": {"kafka": {"key": {"description": "The key of the record."}} | BINDING},
    }


def _config(family: Family) -> dict[str, Any]:
    """Return the settings of a topic as the binding has them."""
    config: dict[str, Any] = {"cleanup.policy": [family.config.get("cleanup.policy", "delete")]}
    if "retention.ms" in family.config:
        config["retention.ms"] = int(family.config["retention.ms"])
    if "message.timestamp.type" in family.config:
        config["message.timestamp.type"] = family.config["message.timestamp.type"]
    return config


def _operations(family: Family) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the operations of Dabbawala on the topic of a family."""
    _, _, writers, readers = _documented(family)
    name = "".join(part.capitalize() for part in family.name.split("-"))
    channel = {"$ref": f"#/channels/{family.name}"}
    yield f"send{name}", {"action": "send", "channel": channel, "summary": f"Writers: {writers}."}
    if family in SOURCES or family is RESTAURANTS:
        yield f"receive{name}", {"action": "receive", "channel": channel, "summary": f"Readers: {readers}."}
