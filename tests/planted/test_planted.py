"""Bugs that are planted in real processes are caught by the oracle; `make planted` plants all of them.

The simulation catches every one of the catalogue, too, so here are those of the shortest scenario.
"""

from pathlib import Path

import pytest

from tests.planted.catalogue import BUGS
from tests.planted.scenarios import (
    SCENARIOS,
    Scenario,
    nobody_answers_and_some_talk_nonsense,
    play,
)

SHORT = (nobody_answers_and_some_talk_nonsense,)


def test_every_bug_has_a_scenario() -> None:
    played = [bug for bugs in SCENARIOS.values() for bug in bugs]
    assert sorted(played) == sorted(BUGS)


@pytest.mark.parametrize("scenario", SHORT)
async def test_nothing_is_wrong_without_a_bug(kafka: str, tmp_path: Path, scenario: Scenario) -> None:
    assert not await play(kafka, tmp_path, scenario)


@pytest.mark.parametrize(("bug", "scenario"), [(bug, scenario) for scenario in SHORT for bug in SCENARIOS[scenario]])
async def test_a_planted_bug_is_caught(kafka: str, tmp_path: Path, bug: str, scenario: Scenario) -> None:
    wrong = await play(kafka, tmp_path, scenario, bug)
    assert BUGS[bug].breaks in {each.promise for each in wrong}, wrong
