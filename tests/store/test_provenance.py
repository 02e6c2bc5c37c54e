"""What made an entry: the version, and the commit of a checkout, which `timing.json` keeps and no card does."""

import json
import subprocess
from pathlib import Path

import pytest
from robust_transfer import __version__
from robust_transfer.store import entry as store
from robust_transfer.store.entry import CARD, ENTRY, TIMING, open_entry
from robust_transfer.store.provenance import commit, software, versions


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit of one file."""
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "file.txt").write_text("one\n")
    git(root, "init", "--quiet")
    git(root, "add", "file.txt")
    git(root, "commit", "--quiet", "--message", "first")
    return root


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
    return subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True, text=True).stdout


def test_the_commit_is_named_in_full(checkout: Path) -> None:
    assert commit(checkout) == git(checkout, "rev-parse", "HEAD").strip()
    git(checkout, "tag", "--annotate", "v1", "--message", "a tag is no commit")
    assert commit(checkout) == git(checkout, "rev-parse", "HEAD").strip()


def test_an_edited_file_marks_the_commit_and_an_unknown_one_does_not(checkout: Path) -> None:
    clean = commit(checkout)
    (checkout / "mine.yaml").write_text("experiment: mine\n")
    assert commit(checkout) == clean
    (checkout / "file.txt").write_text("two\n")
    assert commit(checkout) == f"{clean}-dirty"


def test_what_is_no_checkout_has_no_commit(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = checkout / "vendored"
    inside.mkdir()
    assert commit(inside) == ""  # the other project's commit says nothing of this code
    assert software(inside) == {"version": __version__}
    assert software(checkout) == {"version": __version__, "commit": commit(checkout)}
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert commit(checkout) == ""


def test_the_commit_stands_in_the_timing_and_not_in_the_card(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store" / "features" / "a-1"
    path.mkdir(parents=True)
    store.write_json(path / ENTRY, {"stage": "features", "settings": {}, "inputs": {}})
    cards, commits = [], []
    for text in ("one\n", "two\n"):
        (checkout / "file.txt").write_text(text)
        monkeypatch.setattr(store, "software", lambda: software(checkout))
        with open_entry(path).writing() as draft:
            draft.file("data.bin").write_text("hello")
        cards.append((path / CARD).read_bytes())
        commits.append(json.loads((path / TIMING).read_text())["provenance"]["commit"])
    assert cards[0] == cards[1]
    assert commits == [commit(checkout).removesuffix("-dirty"), commit(checkout)]
    assert json.loads(cards[0])["provenance"] == versions()
