"""Exactly-once tasks for any Faust app; see ``examples/count.py`` and ``docs/exactly-once.md``.

The names that need Faust are imported when they are first used: Faust takes a second to import, and a program that only
catches an error or reads a constant of this package does without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from exactly_once.calls.destinations import DestinationState
from exactly_once.calls.interfaces import CallOutcome, Completed, DestinationKey, Health, Performer, Retry, Unsettled
from exactly_once.calls.rows import Call, decode_call
from exactly_once.kafka.producer import BrokerTooOld
from exactly_once.kafka.topic_admin import BrokerUnreachable, ConfigMismatch, TopicMismatch, TopicSpec
from exactly_once.settings import LEAVE_SIGNAL, EngineSettings
from exactly_once.state.row_cache import TwoGenerationCache
from exactly_once.task.indexes import Index
from exactly_once.task.interfaces import Record, RejectRecord
from exactly_once.task.task import Task
from exactly_once.task.transaction import UNSET

if TYPE_CHECKING:
    from exactly_once.engine import Engine, PartitionNotOwned, SourceProgress, StoreOpening
    from exactly_once.faust.app_settings import exactly_once
else:
    NEED_FAUST = {
        "Engine": "exactly_once.engine",
        "PartitionNotOwned": "exactly_once.engine",
        "SourceProgress": "exactly_once.engine",
        "StoreOpening": "exactly_once.engine",
        "exactly_once": "exactly_once.faust.app_settings",
    }
    """Public name -> its module."""

    def __getattr__(name: str) -> object:
        """Import a public name that needs Faust."""
        if name not in NEED_FAUST:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(NEED_FAUST[name]), name)


__all__ = [
    "LEAVE_SIGNAL",
    "UNSET",
    "BrokerTooOld",
    "BrokerUnreachable",
    "Call",
    "CallOutcome",
    "Completed",
    "ConfigMismatch",
    "DestinationKey",
    "DestinationState",
    "Engine",
    "EngineSettings",
    "Health",
    "Index",
    "PartitionNotOwned",
    "Performer",
    "Record",
    "RejectRecord",
    "Retry",
    "SourceProgress",
    "StoreOpening",
    "Task",
    "TopicMismatch",
    "TopicSpec",
    "TwoGenerationCache",
    "Unsettled",
    "decode_call",
    "exactly_once",
]
