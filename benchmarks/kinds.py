"""What a thread of a worker is at, by the innermost frame that tells."""

from types import FrameType

KINDS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    # kind, the file ends so, the function is one of these (none: any)
    ("wait", ("selectors.py",), ("select",)),
    ("wait", ("threading.py",), ("wait",)),
    ("RocksDB write", ("engine/store.py",), ("write",)),
    ("state get", ("engine/store.py",), ("get",)),
    ("state get", ("streams/tables.py",), ("get", "read")),
    ("decode", ("topics/records.py",), ("read", "_place")),
    ("decode", ("streams/tables.py",), ("<lambda>", "decode")),
    ("encode", ("topics/records.py", "streams/tables.py", "streams/outbox.py", "streams/tracing.py"), ()),
    ("decide", ("processors/",), ()),
    ("batches", ("engine/transactions.py",), ("_batches",)),
    ("produce", ("engine/transactions.py",), ()),
    ("buffer", ("engine/changes.py", "engine/task.py", "engine/core.py", "engine/timers.py", "engine/calls.py"), ()),
    ("agents", ("streams/agents/", "streams/workflow.py"), ()),
    ("HTTP", ("aiohttp/", "httpx/", "httpx_aiohttp/", "streams/views/", "streams/calls/", "yarl/", "multidict/"), ()),
    ("consume", ("aiokafka/consumer/", "aiokafka/record/", "engine/fetch.py", "engine/runtime.py"), ()),
    ("consume", ("faust/", "mode/"), ()),
    ("Kafka protocol", ("aiokafka/",), ()),
)
DEEPEST = 30
"""Frames looked at, from the innermost."""


def kind_of(frame: FrameType) -> str | None:
    """What a thread is at; None while it waits."""
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
