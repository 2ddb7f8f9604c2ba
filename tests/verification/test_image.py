"""The reading of a Dockerfile, and the refusal of a step that is not known."""

from pathlib import Path

import pytest

from verification.image import Image, Instruction, StepFailed, instructions


def test_continued_lines_are_one_instruction() -> None:
    text = "# a comment\nFROM base\nRUN one \\\n    && two\n\nUSER 1:1\n"
    assert list(instructions(text)) == [
        Instruction("FROM", "base"),
        Instruction("RUN", "one && two"),
        Instruction("USER", "1:1"),
    ]


def test_the_last_stage_has_only_what_it_copies(tmp_path: Path) -> None:
    image = Image(tmp_path)
    image.build(
        "FROM a\nWORKDIR /app\nCOPY LICENSE README.md ./\nFROM a\nCOPY --from=build /app/LICENSE /data/LICENSE\n"
    )
    assert {path.name for path in (tmp_path / "root").rglob("*") if path.is_file()} == {"LICENSE"}


@pytest.mark.parametrize("step", ["RUN false", "HEALTHCHECK none"])
def test_a_step_that_fails_or_is_not_known_ends_the_build(tmp_path: Path, step: str) -> None:
    with pytest.raises(StepFailed):
        Image(tmp_path).build(f"FROM a\nWORKDIR /app\n{step}\n")
