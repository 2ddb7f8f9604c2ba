"""Requests to a cluster that is not ready yet."""

import pytest
from aiokafka.errors import KafkaError, NodeNotReadyError, TopicAuthorizationFailedError

from exactly_once.kafka.topic_admin import retry_while_unavailable


class Cluster:
    """A cluster whose answers are these errors, and success after them."""

    def __init__(self, *errors: type[KafkaError]) -> None:
        self.errors = list(errors)

    async def ask(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exactly_once.kafka.topic_admin.RETRY_S", 0)


async def test_a_step_is_repeated_until_the_cluster_has_its_leaders(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster(NodeNotReadyError, NodeNotReadyError)
    await retry_while_unavailable(cluster.ask, patience_s=600)
    assert not cluster.errors
    assert [record.message[:21] for record in caplog.records] == ["Kafka is not ready (N"]


async def test_an_error_that_does_not_pass_is_raised_at_once() -> None:
    cluster = Cluster(TopicAuthorizationFailedError, NodeNotReadyError)
    with pytest.raises(TopicAuthorizationFailedError):
        await retry_while_unavailable(cluster.ask, patience_s=600)
    assert cluster.errors == [NodeNotReadyError]


async def test_patience_ends() -> None:
    cluster = Cluster(NodeNotReadyError, NodeNotReadyError)
    with pytest.raises(NodeNotReadyError):
        await retry_while_unavailable(cluster.ask, patience_s=-1)
    assert cluster.errors == [NodeNotReadyError]
