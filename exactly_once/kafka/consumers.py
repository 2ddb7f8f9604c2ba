"""Consumers of committed records without a group, for a restore and for views."""

from typing import Any

from aiokafka import AIOKafkaConsumer

from exactly_once.kafka.client_settings import ClientSettings
from exactly_once.kafka.skipping_consumer import SkippingConsumer

READ_COMMITTED = {"isolation_level": "read_committed", "enable_auto_commit": False, "auto_offset_reset": "none"}


def committed_consumer(client_settings: ClientSettings, **options: Any) -> AIOKafkaConsumer:
    """Return a consumer that raises at a record it cannot decode. The caller starts it, assigns and seeks."""
    return AIOKafkaConsumer(**{**client_settings, **READ_COMMITTED, **options})


def skipping_consumer(client_settings: ClientSettings, **options: Any) -> SkippingConsumer:
    """Return a consumer that skips records it cannot decode. The caller starts it, assigns and seeks."""
    return SkippingConsumer(**{**client_settings, **READ_COMMITTED, **options})
