"""The head of the timers compared with all timers."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from exactly_once.task.timers import TimerHead, due_of, timer_key


class Disk:
    """Committed timer rows, with the number of keys that were read."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = set(keys)
        self.read_keys = 0

    def read(self, from_key: bytes) -> Iterator[bytes]:
        for key in sorted(key for key in self.keys if key >= from_key):
            self.read_keys += 1
            yield key

    def write(self, head: TimerHead, rows: dict[bytes, bytes | None]) -> None:
        for key, payload in rows.items():
            (self.keys.discard if payload is None else self.keys.add)(key)
        head.committed(rows)


ROWS = st.dictionaries(st.integers(0, 40).map(lambda due: timer_key(due, b"t")), st.sampled_from([b"p", None]))


@given(first=st.sets(st.integers(0, 40)), commits=st.lists(ROWS), size=st.integers(1, 6))
def test_the_head_has_exactly_the_earliest_committed_timers(
    first: set[int], commits: list[dict[bytes, bytes | None]], size: int
) -> None:
    disk = Disk(*(timer_key(due, b"t") for due in first))
    head = TimerHead(disk.read, size)
    for rows in [{}, *commits]:
        disk.write(head, rows)
        kept = list(head)
        assert kept == sorted(disk.keys)[: len(kept)]
        assert len(kept) <= 2 * size
        assert len(kept) > size // 4 or len(kept) == len(disk.keys), "the earliest timer is always in the head"


def test_a_burst_is_read_from_disk_only_once() -> None:
    disk = Disk(*(timer_key(n, b"") for n in range(10_000)))
    head = TimerHead(disk.read, 100)
    fired = 0
    while due := list(head):
        disk.write(head, dict.fromkeys(due))
        fired += len(due)
    assert fired == 10_000
    assert disk.read_keys < 10_500


def test_keys_sort_by_time_then_id() -> None:
    keys = [timer_key(1, b"b"), timer_key(1, b"a"), timer_key(256, b""), timer_key(2**40, b"a")]
    assert sorted(keys) == [timer_key(1, b"a"), timer_key(1, b"b"), timer_key(256, b""), timer_key(2**40, b"a")]
    assert due_of(keys[3]) == 2**40
