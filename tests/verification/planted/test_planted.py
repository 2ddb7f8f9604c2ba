"""The oracle finds bugs that are planted in real processes. `make planted` plants all bugs.

The simulation finds every bug of the catalogue too, so these tests play only the shortest scenario.
"""

from pathlib import Path

import pytest

from verification.planted.catalogue import BUGS
from verification.planted.scenarios import (
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
async def test_a_scenario_without_a_bug_has_no_violation(kafka: str, tmp_path: Path, scenario: Scenario) -> None:
    assert not await play(kafka, tmp_path, scenario)


@pytest.mark.parametrize(("bug", "scenario"), [(bug, scenario) for scenario in SHORT for bug in SCENARIOS[scenario]])
async def test_the_oracle_finds_a_planted_bug(kafka: str, tmp_path: Path, bug: str, scenario: Scenario) -> None:
    wrong = await play(kafka, tmp_path, scenario, bug)
    assert BUGS[bug].breaks in {each.promise for each in wrong}, wrong
