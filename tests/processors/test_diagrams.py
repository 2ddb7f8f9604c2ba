"""The tables as people read them."""

from pathlib import Path

import pytest

from processors import diagrams
from processors.diagrams import BEGIN, END, inserted, main, render

ROOT = Path(diagrams.__file__).parent.parent


def test_every_machine_is_drawn_and_listed() -> None:
    text = render()
    for _, path, table, _ in diagrams.MACHINES:
        assert f"(`{path}`)" in text
        assert all(f"| {row.event.__name__} |" in text for row in table)
    assert "    CREATED --> REJECTED: PaymentDeclined" in text
    assert '    state "SCHEDULED, asked" as ASKED' in text
    assert "    DELIVERED --> [*]" in text
    assert "| CREATED | PaymentCharged | otherwise | SCHEDULED, asked | restaurant: ask; a record on" in text


def test_every_row_says_what_it_does_in_words() -> None:
    for _, _, table, _ in diagrams.MACHINES:
        for row in table:
            assert row.does.__doc__
            assert row.when is None or row.when.__doc__


def test_what_stands_around_the_marks_stays() -> None:
    text = f"# Title\n\n{BEGIN}\nold\n{END}\n\nThe end.\n"
    assert inserted(text) == f"# Title\n\n{BEGIN}\n\n{render()}\n{END}\n\nThe end.\n"
    assert inserted(inserted(text)) == inserted(text)


def test_the_file_is_written_and_then_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--check"]) == "ARCHITECTURE.md is not here: run this in the folder that holds it"
    Path("ARCHITECTURE.md").write_text("# Nothing\n")
    for choice in ("--check", "--write"):
        said = main([choice])
        assert said is not None
        assert said.startswith(f"ARCHITECTURE.md needs the lines {BEGIN} and {END}")
    Path("ARCHITECTURE.md").write_text(f"{BEGIN}\n{END}\n")
    said = main(["--check"])
    assert said is not None
    assert said.endswith("run python -m processors.diagrams --write")
    assert main(["--write"]) is None
    assert main(["--check"]) is None


def test_architecture_says_what_the_tables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["--check"]) is None
