"""Whether the file system of a store keeps two processes from writing one entry: probed before the first job.

Not all do: an NFS without its lock daemon refuses locks, one mounted with `nolock` grants them without telling other
machines, and some network and FUSE file systems grant them to everybody.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

from robust_transfer.store.entry import StoreError

MOUNTS = Path("/proc/self/mounts")
SECONDS = 60
"""How long another process may take to find a file locked."""
LOCAL = {"nolock", "local_lock=all", "local_lock=posix", "localflock"}
"""Mount options with which locks hold within one machine alone."""
_OTHER = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        sys.exit(10)
sys.exit(11)
"""
_REFUSED, _GRANTED = 10, 11


def check_locks(folder: Path) -> None:
    """Raise StoreError if a file in `folder`, locked by one process, can be locked by another, or by none.

    OSError if nothing can be written there. Takes 50 ms.
    """
    probe = folder / f".lock-probe.{socket.gethostname()}.{os.getpid()}"
    try:
        with open(probe, "w") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise _unlockable(folder, f"locking a file fails: {error.strerror}") from error
            command = [sys.executable, "-I", "-S", "-c", _OTHER, str(probe)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    finally:
        probe.unlink(missing_ok=True)
    if done.returncode == _GRANTED:
        raise _unlockable(folder, "a file that one process has locked can be locked by another")
    if done.returncode != _REFUSED:
        raise _unlockable(folder, f"another process cannot lock a file: {done.stderr.strip()[-200:]}")


def lock_notices(folder: Path) -> list[str]:
    """One line if the folder is mounted so that other machines see nothing of its locks."""
    found = sorted(set(_mount_options(folder)) & LOCAL)
    if not found:
        return []
    return [
        f"store: {folder} is mounted with {', '.join(found)}: its locks hold within one machine, so do not let jobs of "
        "two machines write to it at one time"
    ]


def _unlockable(folder: Path, why: str) -> StoreError:
    return StoreError(
        f"store = {folder}: its file system does not honour locks ({why}), so two jobs could write one entry at once. "
        "Mount it with locks (NFS: with lockd and without nolock; Lustre: with flock), or set store to another disk"
    )


def _mount_options(folder: Path) -> list[str]:
    """Options of the mount that a folder lies on; none where the system does not list them."""
    try:
        lines = MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return []
    inside = folder.absolute().resolve()
    mounts = [line.split() for line in lines if len(line.split()) > 3]
    above = [(Path(one[1].replace("\\040", " ")), one[3]) for one in mounts]
    fitting = [(len(point.parts), options) for point, options in above if inside.is_relative_to(point)]
    return max(fitting, default=(0, ""), key=lambda one: one[0])[1].split(",")
