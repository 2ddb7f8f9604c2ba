"""The app with a session and a stop of at most ten minutes, for tests that wait far less for either.

    stack.start_worker(app="tests.support.patient_app")

A partition that moves sooner has not waited for the session of its last owner to end. A worker that ends sooner has
stopped in an orderly way: it was not cut off at the limit.
"""

from dataclasses import replace
from typing import Any

from exactly_once import Engine, EngineSettings
from streams.build import Surroundings, WorkerApp, build
from streams.cli import faust_commands
from streams.settings import Settings

LIMIT_S = 600.0


def make_app(name: str, **settings: Any) -> WorkerApp:
    """Make the app. Faust allows no session longer than the time-out of a request."""
    return WorkerApp(name, **{**settings, "broker_session_timeout": LIMIT_S, "broker_request_timeout": LIMIT_S})


def make_engine(app: WorkerApp, *, settings: EngineSettings, **others: Any) -> Engine:
    """Make the engine."""
    return Engine(app, settings=replace(settings, stop_s=LIMIT_S), **others)


app = build(Settings.from_environment(), surroundings=Surroundings(make_app=make_app, make_engine=make_engine)).app
faust_commands.register()
