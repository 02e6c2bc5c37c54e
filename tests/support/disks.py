"""Bad disks: small ones, read-only ones, and such as do not lock files."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NO_LOCKS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int guarded(int file) {
    char link[64], path[4096];
    const char *below = getenv("NO_LOCKS_BELOW");
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0 || !below) return 0;
    path[n] = 0;
    return strncmp(path, below, strlen(below)) == 0;
}

static int call(const char *name, int file, int command, void *argument) {
    if ((command == F_SETLK || command == F_SETLKW) && guarded(file)) {
        if (getenv("LOCKS_ARE_GRANTED")) return 0;
        errno = ENOLCK;
        return -1;
    }
    int (*real)(int, int, ...) = dlsym(RTLD_NEXT, name);
    return real(file, command, argument);
}

int fcntl(int file, int command, ...) {
    va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest);
    return call("fcntl", file, command, argument);
}

int fcntl64(int file, int command, ...) {
    va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest);
    return call("fcntl64", file, command, argument);
}
"""


def without_locks(build: Path, below: Path, *, granted: bool) -> dict[str, str]:
    """Environment variables of processes for which files in a folder cannot be locked, or are locked by everybody."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, library = build / "no_locks.c", build / "no_locks.so"
    source.write_text(NO_LOCKS)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    variables = {"LD_PRELOAD": str(library), "NO_LOCKS_BELOW": str(below)}
    return variables | ({"LOCKS_ARE_GRANTED": "1"} if granted else {})


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in the folder can be written. Skips the test where that cannot be arranged."""
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """An empty disk of that size, at a folder that is made for it. Skips the test where that cannot be arranged."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(folder: Path, kilobytes: int) -> None:
    """Give a disk of `small_disk` another size."""
    _mount("-o", f"remount,size={kilobytes}k", str(folder))


def free(folder: Path) -> int:
    """Bytes that can still be written there."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs to mount file systems: {done.stderr.strip()}")
