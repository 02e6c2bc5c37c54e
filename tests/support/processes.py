"""Python code in a process of its own, with the package and the tests' own modules on its path."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from typing import IO

from support.paths import TESTS, WORKFLOW


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, with `PYTHONPATH` set so that the package and the tests can be imported."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(WORKFLOW), str(TESTS)]), "OMP_NUM_THREADS": "1"} | variables


def start(code: str, *arguments: object, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a process that runs `code`; its three streams are pipes of text.

    Args:
        code: Python source; a common indentation is removed.
        arguments: What it finds in `sys.argv[1:]`.
        variables: Environment variables to set for it.
    """
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment(**(variables or {})), stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def output(code: str, *arguments: object, variables: Mapping[str, str] | None = None, timeout: float = 120) -> str:
    """Run `code` as `start` does and return what it prints; its exit status must be 0."""
    process = start(code, *arguments, variables=variables)
    try:
        printed, errors = process.communicate(timeout=timeout)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, errors
    return printed


def first_line(stream: IO[str] | None) -> str:
    """The next line of a pipe, once there is one, without its line break."""
    assert stream
    return stream.readline().rstrip("\n")
