"""File systems that do not lock files are noticed before two jobs write one entry."""

import os
from pathlib import Path

import pytest
from robust_transfer.store import locking
from robust_transfer.store.entry import StoreError
from robust_transfer.store.locking import check_locks, lock_notices
from support.disks import without_locks
from support.processes import start

PROBE = """
    import sys
    from pathlib import Path
    from robust_transfer.store.locking import check_locks
    check_locks(Path(sys.argv[1]))
"""


def test_a_disk_that_locks_is_accepted_and_nothing_is_left(tmp_path: Path) -> None:
    check_locks(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("granted", "told"),
    [
        (False, "locking a file fails: No locks available"),
        (True, "a file that one process has locked can be locked by another"),
    ],
)
def test_a_disk_that_does_not_is_named(granted: bool, told: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    process = start(PROBE, store, variables=without_locks(tmp_path, store, granted=granted))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert f"StoreError: store = {store}: its file system does not honour locks (" in last
    assert told in last
    assert "NFS: with lockd and without nolock" in last
    assert not list(store.iterdir())


def test_another_process_that_cannot_lock_is_not_taken_for_a_lock(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(locking, "_OTHER", "raise OSError('Stale file handle')")
    with pytest.raises(StoreError, match=r"(?s)another process cannot lock a file: .*Stale file handle"):
        check_locks(tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("rw,relatime,vers=3,nolock,proto=tcp", ["nolock"]),
        ("rw,vers=3,local_lock=all", ["local_lock=all"]),
        ("rw,vers=4.2,local_lock=none", []),
        ("rw,localflock", ["localflock"]),
        ("rw,flock", []),
    ],
)
def test_a_mount_whose_locks_other_machines_do_not_see_is_named(
    options: str, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    shared = tmp_path / "a disk"
    mounts.write_text(
        f"overlay / overlay rw 0 0\nserver:/x {str(shared).replace(' ', chr(92) + '040')} nfs {options} 0 0\nbroken\n"
    )
    monkeypatch.setattr(locking, "MOUNTS", mounts)
    assert lock_notices(tmp_path) == []
    found = lock_notices(shared / "store")
    assert [f"is mounted with {', '.join(told)}: its locks hold within one machine" in line for line in found] == [
        True for _ in told
    ]


def test_where_mounts_are_not_listed_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "MOUNTS", tmp_path / "nowhere")
    assert lock_notices(Path(os.sep)) == []
