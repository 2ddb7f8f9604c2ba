"""Activity of a worker's thread, by the innermost frame that identifies it."""

from types import FrameType

KINDS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    # kind, parts of file names, names of functions (empty: any)
    ("wait", ("selectors.py",), ("select",)),
    ("wait", ("threading.py",), ("wait",)),
    ("RocksDB write", ("exactly_once/state/rocksdb.py",), ("write",)),
    ("state get", ("exactly_once/state/rocksdb.py",), ("get",)),
    ("state get", ("streams/worker/tables.py",), ("get", "read")),
    ("decode", ("topics/records.py",), ("read", "_place")),
    ("decode", ("streams/worker/tables.py",), ("<lambda>", "decode")),
    ("encode", ("topics/records.py", "streams/worker/tables.py", "streams/worker/outbox.py", "streams/tracing/"), ()),
    ("decide", ("processors/",), ()),
    ("batches", ("exactly_once/kafka/producer.py",), ("_batches",)),
    ("produce", ("exactly_once/kafka/producer.py",), ()),
    ("buffer", ("exactly_once/task/", "exactly_once/calls/"), ()),
    ("agents", ("streams/agents/", "streams/worker/order_workflow.py"), ()),
    ("HTTP", ("aiohttp/", "httpx/", "httpx_aiohttp/", "streams/views/", "streams/calls/", "yarl/", "multidict/"), ()),
    ("consume", ("aiokafka/consumer/", "aiokafka/record/", "exactly_once/kafka/fetch.py", "exactly_once/faust/"), ()),
    ("consume", ("faust/", "mode/"), ()),
    ("Kafka protocol", ("aiokafka/",), ()),
)
DEEPEST = 30
"""Frames looked at, from the innermost."""


def kind_of(frame: FrameType) -> str | None:
    """Return the activity of a thread, or None while it waits."""
    current: FrameType | None = frame
    for _ in range(DEEPEST):
        if current is None:
            break
        file, function = current.f_code.co_filename, current.f_code.co_name
        for kind, ends, functions in KINDS:
            if any(end in file for end in ends) and (not functions or function in functions):
                return None if kind == "wait" else kind
        current = current.f_back
    return "event loop"
