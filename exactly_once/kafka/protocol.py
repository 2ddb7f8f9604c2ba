"""Requests of Kafka's protocol that aiokafka lacks, or lacks in the version that the engine needs, and error codes.

Each request is sent in exactly one version, with ``AIOKafkaClient.send``. The fields are those of Kafka's protocol
guide, https://kafka.apache.org/protocol.
"""

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import aiokafka.errors as errors
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.api import Request, RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

TopicAndPartition = tuple[str, int]

RETRY_S = 0.003
"""Pause between attempts: the usual cause, the previous transaction's markers, takes one to a few milliseconds."""
RETRIABLE = frozenset({5, 6, 7, 14, 15, 16, 19, 20, 51, 78})
"""Error codes after which a request may be sent again: no leader or not the leader (5, 6), replicas slow (7) or too few
(19, 20), coordinator loading or moved (14, 15, 16), previous transaction still completing (51), end not known to a new
leader (78). A produce request keeps its sequence number, so the broker recognises a batch that it already has."""
NOT_LEADER = frozenset({5, 6})
NOT_COORDINATOR = frozenset({15, 16})
FENCED = frozenset({22, 25, 47, 49, 90})
TOPIC_AUTHORIZATION_FAILED = 29
"""Error code: this user may not read the topic."""
CLUSTER_AUTHORIZATION_FAILED = 31
"""Error code: this user may not alter the cluster."""
TRANSACTIONAL_ID_NOT_FOUND = 105
"""Error code: the coordinator does not know the transactional id."""


class TransactionError(Exception):
    """The transaction is not committed, or its outcome is unknown. The client cannot be used any further."""


class Fenced(TransactionError):
    """Another client has taken over the transactional id, or the broker has aborted the transaction."""


class NotAllowed(TransactionError):
    """An access control list denies the request."""


def raise_or_retry(code: int, what: str) -> bool:
    """Return False for success and True for an error to retry after. Raise ``TransactionError`` for any other error."""
    if code in RETRIABLE:
        return True
    if code:
        kind = Fenced if code in FENCED else NotAllowed if code == CLUSTER_AUTHORIZATION_FAILED else TransactionError
        raise kind(f"{what}: {errors.for_code(code).__name__} ({code})")
    return False


def leader_of(client: AIOKafkaClient, tp: TopicAndPartition) -> int | None:
    """Return the node that leads a partition; None if it is unknown."""
    leader = client.cluster.leader_for_partition(TopicPartition(*tp))
    return None if leader in (None, -1) else leader


def format_partitions(partitions: Iterable[TopicAndPartition]) -> str:
    """Return the partitions for a message, as ``topic/0, topic/1``."""
    return ", ".join(f"{topic}/{number}" for topic, number in sorted(partitions))


# -- the requests -----------------------------------------------------------------------------------------------------

TEXT, TAGS = CompactString("utf-8"), ("tags", TaggedFields)


class Uuid(Int64):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: Any) -> bytes:
        return bytes(value)

    @classmethod
    def decode(cls, data: BytesIO) -> Any:
        return data.read(16)


def versioned_request(
    key: int, version: int, fields: Sequence[tuple[str, Any]], answer: Sequence[tuple[str, Any]], *, header: int = 1
) -> type[Any]:
    """Return a request class for ``AIOKafkaClient.send`` in exactly one version, with none negotiated."""

    class _Answer(Response):  # type: ignore[misc]
        API_KEY = key
        API_VERSION = version
        SCHEMA = Schema(*answer, TAGS)

    class _Struct(RequestStruct):  # type: ignore[misc]
        API_KEY = key
        API_VERSION = version
        FLEXIBLE_VERSION = True
        RESPONSE_TYPE = _Answer
        SCHEMA = Schema(*fields, TAGS)

        def parse_response_header(self, read_buffer: BytesIO | bytes) -> Any:
            if header == 0:
                return ResponseHeader_v0.decode(read_buffer)
            return super().parse_response_header(read_buffer)

    class _Versioned(Request[_Struct]):  # type: ignore[misc]
        API_KEY = key

        def __init__(self, *values: Any) -> None:
            self.values = values

        def build(self, request_struct_class: type[_Struct]) -> _Struct:
            return request_struct_class(*self.values, {})

    return _Versioned


def _topics(*fields: tuple[str, Any]) -> tuple[str, Any]:
    return ("topics", CompactArray(("name", TEXT), ("partitions", CompactArray(*fields, TAGS)), TAGS))


_PARTITIONS = ("topics", CompactArray(("name", TEXT), ("partitions", CompactArray(Int32)), TAGS))
"""Topics, each with partition numbers."""

_PRODUCER = (("producer_id", Int64), ("producer_epoch", Int16))
_OWNER = (("transactional_id", TEXT), *_PRODUCER)
_ERROR = (("throttle", Int32), ("error_code", Int16))

ApiVersions = versioned_request(
    18,
    3,
    (("name", TEXT), ("version", TEXT)),
    (
        ("error_code", Int16),
        ("apis", CompactArray(("key", Int16), ("lowest", Int16), ("highest", Int16), TAGS)),
        ("throttle", Int32),
    ),
    header=0,
)
InitProducerId = versioned_request(
    22, 5, (("transactional_id", TEXT), ("timeout_ms", Int32), *_PRODUCER), (*_ERROR, *_PRODUCER)
)
PRODUCING = (
    ("transactional_id", TEXT),
    ("acks", Int16),
    ("timeout_ms", Int32),
    _topics(("index", Int32), ("records", CompactBytes)),
)
PRODUCED = (
    _topics(
        ("index", Int32),
        ("error_code", Int16),
        ("base_offset", Int64),
        ("append_time", Int64),
        ("log_start", Int64),
        ("record_errors", CompactArray(("index", Int32), ("message", TEXT), TAGS)),
        ("message", TEXT),
    ),
    ("throttle", Int32),
)
Produce = versioned_request(0, 12, PRODUCING, PRODUCED)
EndTxn = versioned_request(26, 5, (*_OWNER, ("commit", Boolean)), (*_ERROR, *_PRODUCER))
WriteTxnMarkers = versioned_request(
    27,
    1,
    (
        (
            "markers",
            CompactArray(*_PRODUCER, ("commit", Boolean), _PARTITIONS, ("coordinator_epoch", Int32), TAGS),
        ),
    ),
    (
        (
            "markers",
            CompactArray(("producer_id", Int64), _topics(("index", Int32), ("error_code", Int16)), TAGS),
        ),
    ),
)
DescribeTransactions = versioned_request(
    65,
    0,
    (("transactional_ids", CompactArray(TEXT)),),
    (
        ("throttle", Int32),
        (
            "transactions",
            CompactArray(
                ("error_code", Int16),
                ("transactional_id", TEXT),
                ("state", TEXT),
                ("timeout_ms", Int32),
                ("start_ms", Int64),
                *_PRODUCER,
                _PARTITIONS,
                TAGS,
            ),
        ),
    ),
)
DescribeProducers = versioned_request(
    61,
    0,
    (_PARTITIONS,),
    (
        ("throttle", Int32),
        _topics(
            ("index", Int32),
            ("error_code", Int16),
            ("message", TEXT),
            (
                "producers",
                CompactArray(
                    ("producer_id", Int64),
                    ("producer_epoch", Int32),
                    ("last_sequence", Int32),
                    ("last_ms", Int64),
                    ("coordinator_epoch", Int32),
                    ("transaction_start", Int64),
                    TAGS,
                ),
            ),
        ),
    ),
)
READ_UNCOMMITTED, READ_COMMITTED = 0, 1
LATEST = -1
ListOffsets = versioned_request(
    2,
    6,
    (
        ("replica", Int32),
        ("isolation_level", Int8),
        _topics(("index", Int32), ("leader_epoch", Int32), ("timestamp", Int64)),
    ),
    (
        ("throttle", Int32),
        _topics(
            ("index", Int32), ("error_code", Int16), ("timestamp", Int64), ("offset", Int64), ("leader_epoch", Int32)
        ),
    ),
)
Metadata = versioned_request(
    3,
    12,
    (("topics", CompactArray(("id", Uuid), ("name", TEXT), TAGS)), ("create", Boolean), ("operations", Boolean)),
    (
        ("throttle", Int32),
        ("brokers", CompactArray(("id", Int32), ("host", TEXT), ("port", Int32), ("rack", TEXT), TAGS)),
        ("cluster", TEXT),
        ("controller", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", TEXT),
                ("id", Uuid),
                ("internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("index", Int32),
                        ("leader", Int32),
                        ("epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        TAGS,
                    ),
                ),
                ("operations", Int32),
                TAGS,
            ),
        ),
    ),
)
FINALIZED_FEATURES = (2, CompactArray(("name", TEXT), ("max_level", Int16), ("min_level", Int16), TAGS))
"""Tag of an ApiVersions answer that carries the cluster's finalized features, and its schema."""
