"""The directory of an installation is for its user alone, and so is each file that is made in it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.local.errors import SetUpError
from streams.local.private_directory import OTHERS, make_private
from tests.support.modes import readable_by_others


@pytest.fixture(autouse=True)
def _own_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("mode", [None, 0o755, 0o777, 0o700])
def test_directory_and_files_are_private(tmp_path: Path, mode: int | None) -> None:
    directory = tmp_path / "a" / "dabbawala"
    if mode is not None:
        directory.mkdir(parents=True)
        directory.chmod(mode)
    make_private(directory)
    (directory / "file").write_text("x")
    (directory / "inner").mkdir()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert readable_by_others(directory) == []


def test_children_inherit_it(tmp_path: Path) -> None:
    make_private(tmp_path / "dabbawala")
    file = tmp_path / "dabbawala" / "file"
    subprocess.run([sys.executable, "-c", f"open({str(file)!r}, 'w')"], check=True)
    assert file.stat().st_mode & OTHERS == 0


def test_directory_of_another_user_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(SetUpError, match=r"belongs to another user, .* set DABBAWALA_DIR to a directory of your own"):
        make_private(tmp_path)


def test_a_file_in_its_place_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetUpError, match=r"cannot be used \(File exists\): set DABBAWALA_DIR"):
        make_private(tmp_path / "file")
