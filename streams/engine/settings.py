"""What can be tuned in the engine, each with the reason for its value."""

from dataclasses import dataclass

_AT_ONCE = ("calls_at_once", "calls_per_host", "calls_per_party", "party_first")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Times are seconds unless the name says otherwise. ``ValueError`` names the value that cannot be."""

    commit_gap_ms: int = 0
    """Pause after a commit while nothing holds them up. 0 where the broker (as the embedded one) has
    ``add.partitions.to.txn.retry.backoff.ms=1``; with its default of 20 a gap of 4 spares the back-off of transactions
    in close succession."""
    commit_gap_most_ms: int = 25
    """What the pause grows to while commits are held up, see ``pace``."""
    commit_deadline_s: float = 8.0
    """A commit that takes longer breaks the task. Below the transaction timeout: the broker must not decide first."""
    transaction_timeout_s: float = 10.0
    """When the broker aborts a transaction nobody finishes; until then it hides what comes after it from readers."""
    buffer_bytes: int = 4 << 20
    """What one transaction may hold; records, timers and results beyond it wait for the next."""
    backlog_records: int = 20_000
    """Records fetched and not applied yet, a task; a task with more is not fetched for."""
    slice_s: float = 0.005
    """How long one task applies records or fires timers before the event loop goes on to others."""
    fetch_max_wait_ms: int = 100
    """How long the broker holds a fetch with nothing to say; a seek waits for the fetch under way."""
    poll_s: float = 0.02
    """One poll of the fetched records; a reset waits for the poll under way."""

    timer_head: int = 1024
    """The earliest timers kept in memory, a task; the others stay in RocksDB."""

    look_again_s: float = 60.0
    """Longest wait for a timer or call before the clock is read again: a suspended machine's loop does not count."""

    clock_apart_s: float = 2.0
    """How far the clocks of this machine and of the broker may be apart when a task opens; what is more, timers and
    whoever reads our times would notice. Machines that are kept in time differ by milliseconds."""
    clock_again_s: float = 2.0
    """A task that is held because they are further apart looks again after so long."""

    calls_at_once: int = 256
    """Outgoing calls under way in this worker."""
    calls_per_host: int = 128
    """Of those, calls to one host, which may be that of many parties."""
    calls_per_party: int = 64
    """Of those, calls to one party that answers them: with answers after 0.3 s, 200 a second."""
    party_first: int = 4
    """Calls at once to a party nothing is known of; an answer that comes while it has so many allows one more."""
    silent_after_s: float = 2.0
    """Without an answer for so long, a party shares half of the room with all others that are silent."""
    call_timeout_s: float = 10.0
    """A call without an answer by then is made again."""
    retry_first_s: float = 0.5
    retry_max_s: float = 60.0
    """Back-off between attempts: doubles from the first to the last, less a jitter of up to half."""
    breaker_failures: int = 5
    """Failures in a row after which a party is left alone."""
    breaker_first_s: float = 1.0
    breaker_max_s: float = 30.0
    """How long it is left alone before one call tries; doubles while that one fails."""

    close_calls_s: float = 1.0
    """On the way out, how long running calls are waited for; cut off, the next owner makes them again."""
    close_commit_s: float = 2.0
    """On the way out, how long the last commit is waited for."""
    close_requests_s: float = 0.5
    """When the worker stops, how long HTTP requests under way are waited for."""
    stop_s: float = 4.5
    """When the worker is told to stop, what has not ended by then is cut off: it is as safe as any crash."""
    leave_on_stop: bool = False
    """A worker that stops leaves the group: for one that is not to come back. Others take over at once, where they
    otherwise wait for the end of its session so that nothing moves in a restart."""
    reopen_backoff_s: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0, 3.0)
    """Before a broken task is opened again, by how often it broke in a row."""
    steady_commits: int = 20
    """A task that made so many commits since it was opened starts with the first back-off again."""
    progress_every_s: float = 3600.0
    """How often an idle task notes that its disk is up to date (see ``Progress`` in ``store``)."""

    create_topics: bool = False
    """Create the topics that are missing when the worker starts, with ``replication_factor``."""
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
