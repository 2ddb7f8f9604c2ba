"""Fixtures for every test: a real Kafka (`kafka`) and a unique name (`unique`)."""

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from streams.local.file_lock import FileLock
from streams.local.kafka.broker import EmbeddedKafka

HOME = Path(__file__).parent.parent / ".dabbawala"
LIB = HOME / "kafka" / "lib"
"""Directory of Kafka's jars, shared by all brokers of this checkout."""

# A busy machine would miss a deadline for an example. A failure prints the blob that reproduces it.
settings.register_profile("dabbawala", deadline=None, print_blob=True)
settings.load_profile("dabbawala")

OWN_STACK = (
    "tests/flow/test_catalogue.py",
    "tests/flow/test_faults.py",
    "tests/flow/test_feed_workers.py",
    "tests/flow/test_fuzz.py",
    "tests/flow/test_hung.py",
    "tests/flow/test_kills.py",
    "tests/flow/test_operations.py",
    "tests/flow/test_reconcile.py",
    "tests/flow/test_recovery.py",
    "tests/flow/test_retention.py",
    "tests/flow/test_workers.py",
    "tests/integration/test_lost_markers.py",
)
"""Files with a stack or a broker for their own tests. All other files of `tests/flow` share one stack."""


COMMON_STACK = "tests/flow"
BROKER_TESTS = ("tests/flow/", "tests/integration/", "tests/verification/planted/")
"""Folders of tests with a real Kafka and real processes, which take most of the time."""
STARTED = pytest.StashKey[float]()


def scope_of(nodeid: str) -> str:
    """Return the name that a test shares with those which one process has to run."""
    file = nodeid.partition("::")[0]
    if file in OWN_STACK:
        return file
    return COMMON_STACK if file.startswith(f"{COMMON_STACK}/") else nodeid


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--budget`."""
    text = "skip the tests with a real Kafka that have not started after so many seconds (default: no limit)"
    parser.addoption("--budget", type=float, metavar="SECONDS", default=None, help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Note when the run started."""
    config.stash[STARTED] = time.monotonic()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the common stack first, which one process runs, then all tests without a broker.

    The longest sequence starts at once, and a budget is used up by the tests that it may skip.
    """

    def rank(item: pytest.Item) -> int:
        if scope_of(item.nodeid) == COMMON_STACK:
            return 0
        return 2 if item.nodeid.startswith(BROKER_TESTS) else 1

    items.sort(key=rank)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test with a broker once the budget is used up."""
    budget = item.config.getoption("--budget")
    if budget is None or not item.nodeid.startswith(BROKER_TESTS):
        return
    if time.monotonic() - item.config.stash[STARTED] > budget:
        pytest.skip(f"the budget of {budget:g} s was used up: this machine is too slow for all tests with a broker")


class StacksTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Scheduler that sends tests with a common stack to one process, which starts it once; others go to any process.

    (xdist's `--dist loadgroup` has no effect with pytest 9, which ignores the ids that it assigns.)
    """

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> StacksTogether:
    """Return the scheduler that spreads tests over processes (`-n`)."""
    return StacksTogether(config, log)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print a failure at once, in the process that prints: a run that is stopped before its end shows it, too."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.when} of {report.nodeid} failed:\n{report.longreprtext}", flush=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the summaries of tests (`record_property("summary", ...)`), also of those that pass."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    summaries = [value for report in reports for name, value in report.user_properties if name == "summary"]
    for value in summaries:
        terminalreporter.write_line(str(value))


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap servers (`host:port`) of a real Kafka: `KAFKA_BOOTSTRAP_SERVERS`, or an embedded one.

    All pytest processes of this checkout use one broker, and each holds a shared lock meanwhile. The last process to
    finish gets the exclusive lock; it ends the broker and deletes its data. The lock of a killed process is released.
    """
    if bootstrap := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield bootstrap
        return
    users = FileLock(HOME / "tests" / "users")
    users.wait(shared=True)
    broker = EmbeddedKafka(HOME / "tests", lib=LIB)
    yield broker.start()
    users.release()
    last = FileLock.try_acquire(HOME / "tests" / "users")
    if last:
        broker.kill()
        shutil.rmtree(broker.directory)
        last.release()


@pytest.fixture
def unique(request: pytest.FixtureRequest) -> str:
    """Return a unique name for topics, groups and apps, made of the test's: `test-orders-are-kept-3f9a1c`."""
    test = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    return f"{test[:40]}-{uuid.uuid4().hex[:6]}"
