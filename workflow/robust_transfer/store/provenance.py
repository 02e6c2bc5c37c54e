"""What made an entry: versions of software, and the commit of this checkout. Recorded, never a reason to make it anew.

`versions` goes into the card. `software` goes into `timing.json`: a commit changes with every edit of a document, and a
card, whose content Snakemake compares, must not.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from robust_transfer import __version__

ROOT = Path(__file__).parents[3]
"""Where the repository lies, if the package is used from a checkout."""
PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "pillow")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute, and the first digits of the lock file's SHA-256."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    lock = ROOT / "requirements.lock"
    if lock.exists():
        found["requirements.lock"] = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    return found


def software(root: Path = ROOT) -> dict[str, str]:
    """Version of this package and, where `root` is a git checkout, its commit, as `commit` writes it."""
    found = commit(root)
    return {"version": __version__, **({"commit": found} if found else {})}


def commit(root: Path) -> str:
    """The commit that is checked out in `root`, 40 digits, with `-dirty` where tracked files differ from it.

    Empty where `root` is no checkout of its own (a folder inside another project's checkout is none), git is missing,
    or git refuses to look. Takes 10 ms for this repository.
    """
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
