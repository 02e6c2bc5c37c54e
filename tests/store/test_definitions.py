"""What of a module changed, by name."""

import json
from pathlib import Path

import pytest
from robust_transfer.store import definitions as module
from robust_transfer.store.definitions import changed_code, definitions, record_definitions
from robust_transfer.store.fingerprint import module_fingerprints

TEXT = '''"""A module."""

from robust_transfer.randomness import permutation as order

STEPS = 3

if STEPS > 2:
    print("many")


def pgd(x):
    """Find."""
    step = x + STEPS
    return order(step)


class Ball:
    radius: float = 1

    def project(self, x):
        return x
'''


def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> str:
    """What is said after an edit of the text."""
    before, now = tmp_path / "before.py", tmp_path / "now.py"
    before.write_text(TEXT)
    now.write_text(TEXT.replace(old, new))
    assert old in TEXT
    found, defined = definitions(before)
    (tmp_path / f"{found}.json").write_text(json.dumps({"module": "attacks", "definitions": defined}))
    monkeypatch.setattr(module, "module_file", lambda name: now)
    said = changed_code({"attacks": found}, {"attacks": definitions(now)[0]}, [tmp_path / "none", tmp_path])
    return ", ".join(said)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("x + STEPS", "x - STEPS", "attacks (pgd)"),
        ("        return x", "        return -x", "attacks (Ball.project)"),
        ("float = 1", "float = 2", "attacks (Ball)"),
        ("STEPS = 3", "STEPS = 4", "attacks (STEPS)"),
        ('print("many")', "print()", "attacks (its statements)"),
        ("permutation as order", "uniform as order", "attacks (its statements)"),
        ("def pgd(", "def descend(", "attacks (descend is new, pgd is gone)"),
        ("STEPS = 3", "STEPS = 3\nRATE = 1", "attacks (RATE is new)"),
        ("    def project", "    def clip(self):\n        pass\n\n    def project", "attacks (Ball.clip is new)"),
        ("A module.", "Another text.", ""),
        ("step", "stride", ""),
    ],
)
def test_what_changed_is_named(old, new, said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert changed(tmp_path, monkeypatch, old, new) == said


def test_without_a_record_the_module_is_named(tmp_path: Path) -> None:
    now = module_fingerprints("knn")
    before = {**now, "stages.knn": "0" * 12, "statistics.gone": "1" * 12}
    del before["statistics.metrics"]
    (tmp_path / ("0" * 12 + ".json")).write_text("{")
    assert changed_code(before, now, [tmp_path]) == [
        *("stages.knn", "statistics.gone (no longer used)", "statistics.metrics (new)")
    ]


def test_what_is_recorded_is_complete_and_written_once(tmp_path: Path) -> None:
    record_definitions(tmp_path / ".code", "knn")
    files = {path.stem: path for path in (tmp_path / ".code").iterdir()}
    assert files.keys() == set(module_fingerprints("knn").values())
    before = {name: path.stat().st_mtime_ns for name, path in files.items()}
    record_definitions(tmp_path / ".code", "knn")
    assert {name: path.stat().st_mtime_ns for name, path in files.items()} == before
    assert "run" in json.loads(files[module_fingerprints("knn")["stages.knn"]].read_text())["definitions"]
