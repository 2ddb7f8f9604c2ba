"""The HTTP server of a worker without a Kafka."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import httpx
from faust.web.drivers.aiohttp import Web

from streams.build import Place, build
from streams.local.ports import LOOPBACK
from streams.settings import Settings
from tests.support.keys import HEADERS, SECRET, write_keys
from tests.support.plain_http import NO_CERTIFICATES
from tests.support.stack import ports_of_its_own

VARIABLES = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "DABBAWALA_CATALOGUE": ""}


@asynccontextmanager
async def served(
    directory: Path, variables: Mapping[str, str] | None = None, url: str = "", bind: str = LOOPBACK
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the views of a worker that is built and not started; yield a client of it.

    ``variables`` are settings. ``url`` is the worker's canonical URL if it is not that of the listening address.
    """
    [port] = ports_of_its_own(1)
    here = f"http://{LOOPBACK}:{port}"
    write_keys(directory / "keys.json")
    (directory / "secret").write_text(SECRET)
    settings = Settings.from_environment({**VARIABLES, "DABBAWALA_DIR": str(directory), **(variables or {})})
    services = build(settings, Place(directory, port, url or here, "worker-1-abc", bind))
    web = cast(Web, services.app.web)
    await web.start_server()
    try:
        async with httpx.AsyncClient(base_url=here, headers=HEADERS, verify=NO_CERTIFICATES) as client:
            yield client
    finally:
        await web.stop_server()
