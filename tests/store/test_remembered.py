"""What is remembered of modules' texts: the same as without, never of another text or by other code."""

import sys
from pathlib import Path

import pytest
from robust_transfer.store import remembered
from robust_transfer.store.remembered import Remembered


@pytest.fixture(autouse=True)
def writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python may write byte code, whatever the environment of the tests says."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


def asked(folder: Path, text: str, answer: str, code: str = "code") -> str:
    """What is found out by a process of its own about a text, if `find_out` says `answer`."""
    (folder / "code.py").write_text(code)
    (folder / "text.py").write_text(text)
    memory = Remembered(folder / "asking.py", [folder / "code.py"])
    found = str(memory.of(folder / "text.py", lambda: answer))
    memory.save()
    return found


def test_a_text_is_looked_at_once(tmp_path: Path) -> None:
    assert asked(tmp_path, "a", "first") == "first"
    assert asked(tmp_path, "a", "second") == "first"
    assert asked(tmp_path, "b", "second") == "second"
    assert asked(tmp_path, "a", "third") == "first"


def test_other_code_looks_again(tmp_path: Path) -> None:
    assert asked(tmp_path, "a", "first") == "first"
    assert asked(tmp_path, "a", "second", code="other") == "second"


def test_what_is_damaged_or_too_large_begins_anew(tmp_path: Path) -> None:
    for damage in ("{", "[]", '{"a": "' + "x" * remembered.LARGEST + '"}'):
        asked(tmp_path, "a", "first")
        (file,) = (tmp_path / "__pycache__").iterdir()
        file.write_text(damage)
        assert asked(tmp_path, "a", "second") == "second"
        file.unlink()


def test_where_nothing_can_be_written_it_is_found_out_each_time(tmp_path: Path) -> None:
    (tmp_path / "__pycache__").write_text("a file")
    assert asked(tmp_path, "a", "first") == "first"
    assert asked(tmp_path, "a", "second") == "second"


def test_no_draft_is_left(tmp_path: Path) -> None:
    asked(tmp_path, "a", "first")
    assert [path for path in (tmp_path / "__pycache__").iterdir() if path.name.startswith(".")] == []


def test_it_writes_no_more_than_python_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    asked(tmp_path, "a", "first")
    assert not (tmp_path / "__pycache__").exists()
