"""The settings of a ``faust.App`` whose tasks are exactly-once, and how to reach the app's cluster."""

from typing import Any

import faust.stores
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list
from faust.types import AppT

from exactly_once.faust.assignor import TaskAssignor
from exactly_once.faust.batches import BatchScheduler
from exactly_once.faust.tables import TaskStore, TaskTables
from exactly_once.faust.worker import TaskWorker

STORE_SCHEME = "tasks"
HEARTBEAT_S = 0.3
"""A worker learns of a rebalance with its next heartbeat; the rebalance waits for the last worker to learn of it."""


def exactly_once(
    *, partitions: int, instance_id: str, session_timeout_s: float = 10.0, **others: Any
) -> dict[str, Any]:
    """Return the settings of a ``faust.App`` whose tasks are exactly-once; ``others`` are added to them.

    ``partitions`` is the number of tasks and of partitions of every source. ``instance_id`` names this worker among
    those of the app (``group.instance.id``) and belongs to its data directory: two live workers with one id take the
    group away from each other. A restarted worker resumes under its id at once. Others take over a dead worker's tasks
    after ``session_timeout_s`` seconds.

    The call also registers the store of the tasks' tables with Faust, under the scheme ``tasks://``.
    """
    faust.stores.STORES.aliases[STORE_SCHEME] = f"{TaskStore.__module__}:{TaskStore.__name__}"
    return {
        "store": f"{STORE_SCHEME}://",
        "Worker": TaskWorker,
        "TableManager": TaskTables,
        "PartitionAssignor": TaskAssignor,
        "ConsumerScheduler": BatchScheduler,
        "processing_guarantee": "exactly_once",
        "topic_partitions": partitions,
        "topic_disable_leader": True,
        "table_standby_replicas": 0,
        "consumer_group_instance_id": instance_id,
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": 4 << 20,
        "broker_session_timeout": session_timeout_s,
        "broker_heartbeat_interval": min(HEARTBEAT_S, session_timeout_s / 3),
        "broker_max_poll_records": 4000,
        # The group must not expel a worker whose flow is stopped or that has no partition: aiokafka would never join
        # again. The heartbeat shows whether the worker lives.
        "broker_max_poll_interval": 1e9,
        # Limit for a record of a view that no broker accepts; a rebalance and the end of a worker wait for it.
        "producer_request_timeout": 5.0,
        "stream_wait_empty": False,
        **others,
    }


def client_settings(app: AppT, default_port: int) -> dict[str, Any]:
    """Return the settings with which any aiokafka client reaches the app's cluster."""
    conf = app.conf
    auth = credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context)
    return {"bootstrap_servers": server_list(conf.broker, default_port), **auth}
