"""Requests that nobody would write by hand: no answer is an error of the server, or one that the document lacks."""

import uuid
from collections.abc import Callable, Iterator

import pytest

from streams.reference import openapi
from streams.views import ROUTES
from tests.support.stack import Stack, installed
from verification.fuzz import EXCLUDED, fuzz

EXAMPLES, SEED = 10, 1
WITHIN_S = 600.0
"""Deadline on a busy machine. On a quiet one it takes less than a minute."""


@pytest.fixture(scope="module")
def fuzzed(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a worker that no other test uses: the requests discard dead letters, and make drivers available."""
    with installed(kafka, f"fuzz-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("fuzz"), 300.0) as stack:
        stack.start_payment()
        stack.start_pos()
        stack.start_worker()
        yield stack


def test_no_request_breaks_a_worker(fuzzed: Stack, record_property: Callable[[str, object], None]) -> None:
    result = fuzz(fuzzed, EXAMPLES, SEED, WITHIN_S)
    assert result.passed, result.output
    record_property("summary", f"fuzzing: {' '.join(result.summary.split())}")


def test_every_exclusion_is_a_request() -> None:
    names = {request.operation.name for request in openapi.requests_of(ROUTES)}
    assert set(EXCLUDED) <= names
