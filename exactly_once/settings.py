"""Settings of the engine, each with the reason for its value."""

import signal
from dataclasses import dataclass

LEAVE_SIGNAL = signal.SIGQUIT
"""Stop for good: the worker leaves the group, so that the others take over at once. Faust uses SIGUSR1 and SIGUSR2."""

_AT_ONCE = ("calls_at_once", "calls_per_host", "calls_per_party", "party_first")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Settings of the engine. Times are in seconds unless the name has another unit.

    ``ValueError`` names a value that is out of range.
    """

    commit_gap_ms: int = 0
    """Pause after a commit while nothing holds them up. 0 where the broker (as the embedded one) has
    ``add.partitions.to.txn.retry.backoff.ms=1``; with its default of 20 a gap of 4 spares the back-off of transactions
    in close succession."""
    commit_gap_most_ms: int = 25
    """Longest pause, while commits are slow: see ``commit_pacing``."""
    commit_deadline_s: float = 8.0
    """A commit that takes longer breaks the task. Below the transaction timeout: the broker must not decide first."""
    transaction_timeout_s: float = 10.0
    """Time after which the broker aborts an open transaction. Until then it hides later records from readers."""
    buffer_bytes: int = 4 << 20
    """Limit of one transaction; further records, timers and results wait for the next."""
    backlog_records: int = 20_000
    """Limit of records fetched and not applied yet, per task. The worker stops fetching for a task beyond it."""
    slice_s: float = 0.005
    """Longest time that one task applies records or fires timers before others run."""
    fetch_max_wait_ms: int = 100
    """Longest time that the broker holds an empty fetch. A seek waits for the fetch under way."""
    poll_s: float = 0.02
    """One poll of the fetched records; a reset waits for the poll under way."""

    timer_head: int = 1024
    """Number of the earliest timers kept in memory, per task; the others stay in RocksDB."""

    cluster_patience_s: float = 60.0
    """Time for which a worker that starts repeats a request after an error that passes, such as a missing leader."""

    look_again_s: float = 60.0
    """Longest wait for a timer or call before the clock is read again: the event loop's own clock stops while the
    machine is suspended."""

    clock_apart_s: float = 2.0
    """Largest difference of this machine's clock and the broker's when a task opens. A larger one would show in timers
    and timestamps. Machines with synchronised clocks differ by milliseconds."""
    clock_again_s: float = 2.0
    """Pause before the clocks are compared again, while a task waits for them."""

    calls_at_once: int = 256
    """Limit of outgoing calls under way in this worker."""
    calls_per_host: int = 128
    """Limit of calls under way to one host, which may serve many destinations."""
    calls_per_party: int = 64
    """Limit of calls under way to one destination: with answers after 0.3 s, 200 calls a second."""
    party_first: int = 4
    """First window of a destination; an answer that finds the window full widens it by one."""
    silent_after_s: float = 2.0
    """Time without an answer after which a destination counts as unresponsive: all of those share half the capacity."""
    call_timeout_s: float = 10.0
    """Time after which a call without an answer is retried."""
    retry_first_s: float = 0.5
    retry_max_s: float = 60.0
    """Back-off between attempts: doubles from the first value to the second, less a jitter of up to half."""
    breaker_failures: int = 5
    """Failures in a row after which a destination's circuit breaker opens."""
    breaker_first_s: float = 1.0
    breaker_max_s: float = 30.0
    """Pause of an open breaker before one call passes; doubles with each failure."""

    close_calls_s: float = 1.0
    """Longest wait for calls under way when a task is suspended. The next owner makes the others again."""
    close_commit_s: float = 2.0
    """Longest wait for the last commit when a task is suspended."""
    max_connections: int = 2000
    """Limit of HTTP connections; others are answered 503. Half of the process's descriptors, if that is less: RocksDB
    and Kafka's clients need the rest."""
    keep_alive_s: float = 75.0
    """Time that an idle HTTP connection stays open; above the 60 s of most proxies, which should close first."""
    close_requests_s: float = 0.5
    """Longest wait for HTTP requests under way when the worker stops."""
    stop_s: float = 4.5
    """Longest time to stop. The worker then cuts off the rest, which is as safe as any crash."""
    leave_on_stop: bool = False
    """Leave the group when the worker stops: for a worker that does not come back. Others then take over at once;
    otherwise they wait for the end of its session, so that nothing moves in a restart."""
    reopen_backoff_s: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0, 3.0)
    """Pause before a broken task is opened again, by how often it broke in a row."""
    steady_commits: int = 20
    """Commits since the opening after which a task starts with the first back-off again."""
    checkpoint_every_s: float = 3600.0
    """Interval at which an idle task commits, so that the checkpoint on its disk stays recent."""

    failpoints: str = ""
    """Faults on purpose, for tests: ``name:action:every[,...]``, see ``task/failpoints.py``."""

    create_topics: bool = False
    """Create missing topics when the worker starts, with ``replication_factor``."""
    replication_factor: int = 1

    def __post_init__(self) -> None:
        if self.commit_deadline_s >= self.transaction_timeout_s:
            raise ValueError(
                f"commit_deadline_s ({self.commit_deadline_s}) must be below transaction_timeout_s "
                f"({self.transaction_timeout_s}), or the broker aborts what is still being committed"
            )
        for name in ("buffer_bytes", "backlog_records", "timer_head", *_AT_ONCE):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.clock_apart_s <= 0:
            raise ValueError(f"clock_apart_s must be above 0, it is {self.clock_apart_s}")
        if self.commit_gap_ms < 0:
            raise ValueError(f"commit_gap_ms must not be negative, it is {self.commit_gap_ms}")
