"""Exactly-once tasks for any Faust app; see ``examples/count.py`` and ``docs/exactly-once.md``."""

from exactly_once.calls.destinations import DestinationState
from exactly_once.calls.interfaces import CallOutcome, Completed, DestinationKey, Health, Performer, Retry, Unsettled
from exactly_once.calls.rows import Call, decode_call
from exactly_once.engine import Engine, PartitionNotOwned, SourceProgress
from exactly_once.faust.app_settings import exactly_once
from exactly_once.kafka.producer import BrokerTooOld
from exactly_once.kafka.topic_admin import BrokerUnreachable, ConfigMismatch, TopicMismatch, TopicSpec
from exactly_once.settings import EngineSettings
from exactly_once.state.row_cache import TwoGenerationCache
from exactly_once.task.indexes import Index
from exactly_once.task.interfaces import Record, RejectRecord
from exactly_once.task.task import Task
from exactly_once.task.transaction import UNSET

__all__ = [
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
    "Task",
    "TopicMismatch",
    "TopicSpec",
    "TwoGenerationCache",
    "Unsettled",
    "decode_call",
    "exactly_once",
]
