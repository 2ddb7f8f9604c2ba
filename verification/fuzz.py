"""Fuzzing of the HTTP API: valid and invalid requests, made from its document, sent to a real worker.

python -m verification.fuzz [EXAMPLES] [SEED]

schemathesis makes the requests. No answer may be a 5xx, or have a status, a type of content or a body that the document
lacks.
"""

import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import httpx

from streams.local.kafka.broker import EmbeddedKafka
from tests.conftest import LIB
from tests.support.keys import HEADERS
from tests.support.plain_http import NO_CERTIFICATES
from tests.support.stack import Stack, installed

EXCLUDED: Mapping[str, str] = {
    "streamOrder": "it ends with the order",
    "streamOrders": "it does not end",
    "awaitDelivery": "it waits up to 30 s for each driver that another request made available",
}
"""`operationId` -> the reason that it gets no request."""
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
PHASES = ("examples", "coverage", "fuzzing")
REQUEST_TIMEOUT_S = 60
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"


class Result(NamedTuple):
    """The result of a run."""

    passed: bool
    output: str

    @property
    def summary(self) -> str:
        """The end of the report, from the counts of requests."""
        return self.output.rpartition("SUMMARY")[2].strip(" =\n")


def fuzz(stack: Stack, examples: int, seed: int, within_s: float | None = None) -> Result:
    """Send about ``examples`` random requests to each route of the first worker, and all that cover the schemas.

    Raises `subprocess.TimeoutExpired` after ``within_s``.
    """
    url = stack.url_of(1)
    answer = httpx.get(f"{url}/openapi.json", headers=HEADERS, verify=NO_CERTIFICATES).raise_for_status()
    document = stack.directory / "openapi.json"
    document.write_bytes(answer.content)
    command = [
        *(str(SCHEMATHESIS), "--no-color", "run", str(document), "--url", url, "--mode", "all", "--workers", "1"),
        *("--max-examples", str(examples), "--seed", str(seed), "--generation-database", "none", "--no-shrink"),
        *("--checks", ",".join(CHECKS), "--phases", ",".join(PHASES), "--request-timeout", str(REQUEST_TIMEOUT_S)),
        *("--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off"),
        *(option for name, value in HEADERS.items() for option in ("--header", f"{name}:{value}")),
        *(option for name in EXCLUDED for option in ("--exclude-operation-id", name)),
    ]
    done = subprocess.run(command, cwd=stack.directory, capture_output=True, text=True, timeout=within_s, check=False)
    return Result(done.returncode == 0, re.sub(r"\n{3,}", "\n\n", done.stdout + done.stderr))


def main(examples: int = 100, seed: int = 1) -> None:
    """Fuzz a separate installation; exit with 1 if an answer is wrong."""
    with tempfile.TemporaryDirectory() as directory:
        broker = EmbeddedKafka(Path(directory), lib=LIB, progress=print)
        try:
            kafka = os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or broker.start()
            with installed(kafka, f"fuzz-{uuid.uuid4().hex[:8]}", Path(directory) / "stack", 300.0) as stack:
                stack.start_payment()
                stack.start_pos()
                stack.start_worker()
                result = fuzz(stack, examples, seed)
        finally:
            broker.kill()
    print(result.output)
    sys.exit(not result.passed)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
