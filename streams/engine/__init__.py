"""Exactly-once tasks for any Faust app; see ``examples/count.py`` and ``ARCHITECTURE.md``."""

from streams.engine.calls import Again, Answered, Call, Performer, decode_call
from streams.engine.changes import MISSING
from streams.engine.engine import Engine, NotHere, Reached, exactly_once
from streams.engine.indexes import Index
from streams.engine.parties import PartyState, Whom
from streams.engine.provision import Difference, NoBroker, TopicsDiffer, TopicSpec
from streams.engine.recent import Recent
from streams.engine.settings import EngineSettings
from streams.engine.task import Record, Refuse, Task
from streams.engine.transactions import OldBroker

__all__ = [
    "MISSING",
    "Again",
    "Answered",
    "Call",
    "Difference",
    "Engine",
    "EngineSettings",
    "Index",
    "NoBroker",
    "NotHere",
    "OldBroker",
    "PartyState",
    "Performer",
    "Reached",
    "Recent",
    "Record",
    "Refuse",
    "Task",
    "TopicSpec",
    "TopicsDiffer",
    "Whom",
    "decode_call",
    "exactly_once",
]
