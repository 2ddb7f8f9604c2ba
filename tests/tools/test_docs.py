"""Generated pages are as their sources say."""

from pathlib import Path

import pytest

from tools.docs import PAGES, is_current, main, page


@pytest.mark.parametrize("path", PAGES)
def test_generated_page_is_current(path: str) -> None:
    assert is_current(path), f"{path} is out of date: run `make docs`"


def test_missing_and_changed_pages_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [first, *_] = PAGES
    assert main(["--check"], tmp_path) == 1
    assert f"{first} is out of date" in capsys.readouterr().err
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    (tmp_path / first).write_text("changed")
    assert main([], tmp_path) == 0
    assert capsys.readouterr().out.endswith(f"\n{first} is written\n")
    assert (tmp_path / first).read_text() == page(first)
