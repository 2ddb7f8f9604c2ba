"""What every test may ask for: a real Kafka (`kafka`) and a name that nobody else has (`unique`)."""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from streams.embedded.kafka import EmbeddedKafka
from streams.embedded.lock import FileLock

HOME = Path(__file__).parent.parent / ".dabbawala"
LIB = HOME / "kafka" / "lib"
"""Kafka's jars are fetched once, for whatever starts a broker in this checkout."""

# No deadline for one example, which a busy machine misses; and a failure prints what makes it fail again.
settings.register_profile("dabbawala", deadline=None, print_blob=True)
settings.load_profile("dabbawala")


OWN_STACK = (
    "tests/flow/test_catalogue.py",
    "tests/flow/test_faults.py",
    "tests/flow/test_feed_workers.py",
    "tests/flow/test_hung.py",
    "tests/flow/test_kills.py",
    "tests/flow/test_operations.py",
    "tests/flow/test_reconcile.py",
    "tests/flow/test_recovery.py",
    "tests/flow/test_retention.py",
    "tests/flow/test_workers.py",
    "tests/integration/test_lost_markers.py",
)
"""The files whose tests share a stack or a broker among themselves; the others of `tests/flow` share one together."""


class StacksTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Sends tests that share a stack to the same process, which starts it once, and every other one where there is
    time. (xdist's own `--dist loadgroup` does nothing with pytest 9, which does not read the ids that it gives.)"""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file in OWN_STACK:
            return file
        return "tests/flow" if file.startswith("tests/flow/") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> StacksTogether:
    """How tests are spread over processes (`-n`)."""
    return StacksTogether(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have to say of themselves (`record_property("summary", ...)`) is shown, also where they pass."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    said = [value for report in reports for name, value in report.user_properties if name == "summary"]
    for value in said:
        terminalreporter.write_line(str(value))


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap servers (`host:port`) of a real Kafka: `KAFKA_BOOTSTRAP_SERVERS`, or an embedded one.

    Every pytest process of this checkout uses the same broker and holds a shared lock while it does; the last one to
    leave gets the lock for itself and ends the broker, with all that it held. A process that was killed holds nothing.
    """
    if bootstrap := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield bootstrap
        return
    users = FileLock(HOME / "tests" / "users")
    users.wait(shared=True)
    broker = EmbeddedKafka(HOME / "tests", lib=LIB)
    yield broker.start()
    users.release()
    last = FileLock.taken(HOME / "tests" / "users")
    if last:
        broker.kill()
        shutil.rmtree(broker.directory)
        last.release()


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> str:
    """A name for topics, groups and apps, that tells whose it is: `test-orders-are-kept-3f9a1c`."""
    test = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    return f"{test[:40]}-{uuid.uuid4().hex[:6]}"
