"""Which job uses which GPU of this machine, by lock files: Snakemake starts jobs and does not say which card is theirs.

A job takes its cards before torch is imported, all at once or none, and exports them as CUDA_VISIBLE_DEVICES. Each card
is a file with UNITS bytes to lock: a job that shares its card with up to three others locks a fourth of them, a job
with a card of its own locks all. The kernel frees the locks of a process that dies, however it dies.

Who waits has a ticket, a locked file with a number, and whoever looks for a card serves the older tickets first, in
thought. So equal jobs are served in their order, a job never waits for a card while it holds another, and a smaller
job may pass a larger one that cannot be served, for PASSING seconds at most: from then on, cards are kept for it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from robust_transfer.machine.cards import VISIBLE, Card

UNITS = 24
"""Parts of a card that can be taken: 1, 2, 3, 4, 6, 8, 12 or 24 jobs share it evenly."""
PASSING = 600.0
"""Seconds for which smaller jobs may pass one that waits for more than is free."""
POLL = 0.2
"""Seconds between two looks, at first; later once a second."""
FOLDER = "ROBUST_TRANSFER_SLOTS"
"""Environment variable with the folder of the lock files. Default: one in /tmp, for all users of the machine."""
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "FLUX_JOB_ID")
"""Environment variables by which schedulers number jobs. A job's cards are its own, and may be numbered from 0."""
log = logging.getLogger("robust_transfer")


class SlotError(RuntimeError):
    """There are not the cards that a job asks for, or the lock files cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Request:
    """What a job asks for."""

    cards: tuple[str, ...]
    """Keys of the cards that will do."""
    count: int
    """How many of them."""
    units: int
    """Of each."""
    since: float
    """When it began to wait, on the machine's monotonic clock."""


def allotted(free: Mapping[str, Sequence[int]], requests: Sequence[Request], now: float) -> dict[str, list[int]] | None:
    """Units by card for the last of the requests, once those before it have had theirs; None if it is to wait.

    A request that cannot be served is passed over until it has waited for PASSING seconds; then the emptiest cards are
    kept for it.
    """
    left = {key: list(units) for key, units in free.items()}
    for request in requests:
        emptiest = sorted((key for key in request.cards if key in left), key=lambda key: -len(left[key]))
        best = emptiest[: request.count]
        is_served = len(best) == request.count and all(len(left[key]) >= request.units for key in best)
        if request is requests[-1]:
            return {key: left[key][: request.units] for key in best} if is_served else None
        for key in best:
            if is_served:
                del left[key][: request.units]
            elif now - request.since >= PASSING:
                del left[key]
    return None


@contextmanager
def taken(
    cards: Sequence[Card], count: int, jobs_per_card: int, look: Callable[[], None] = lambda: None
) -> Iterator[list[Card]]:
    """Hold `count` of these cards, which up to `jobs_per_card` such jobs share, and export them for CUDA.

    Waits while others have them, and meanwhile calls `look`, which may raise. Raises SlotError if there are too few.
    """
    if len(cards) < count:
        raise SlotError(
            f"{count} GPUs are asked for, and {len(cards)} can be used ({_names(cards) or 'none'}); ask for fewer, as "
            f"by --set-resources pretraining:gpu={max(1, len(cards))}"
        )
    if count > 1 and any(card.is_mig for card in cards):
        raise SlotError(
            f"{count} GPUs are asked for, and these are MIG instances ({_names(cards)}), which cannot train together; "
            "ask for one"
        )
    request = Request(tuple(card.key for card in cards), count, -(-UNITS // jobs_per_card), time.monotonic())
    with ExitStack() as stack:
        held = _wait(_folder(), request, stack, look)
        own = [card for card in cards if card.key in held]
        names = ",".join(card.name for card in own)
        before = os.environ.get(VISIBLE)
        os.environ[VISIBLE] = names
        log.info("on GPU %s", names)
        try:
            yield own
        finally:
            del os.environ[VISIBLE]
            if before is not None:
                os.environ[VISIBLE] = before


def _wait(folder: Path, request: Request, stack: ExitStack, look: Callable[[], None]) -> dict[str, list[int]]:
    """Wait for the cards; the locks are held until `stack` is closed."""
    with ExitStack() as waiting:
        number, said = None, False
        while True:
            with _alone(folder, look):
                if number is None:
                    number = waiting.enter_context(_ticket(folder, request))
                if found := _take(folder, [*_older(folder, number), request], stack):
                    return found
            if not said:
                log.info("%s; waiting", _wish(request))
                said = True
            pause = POLL if time.monotonic() - request.since < 30 else 5 * POLL
            time.sleep(pause * random.uniform(0.8, 1.2))  # those who wait do not look all at once
            look()


def _take(folder: Path, requests: Sequence[Request], stack: ExitStack) -> dict[str, list[int]] | None:
    """Lock the units for the last of the requests, or none. To be called by one process at a time."""
    with ExitStack() as opened:
        files = {key: _opened(folder / f"{_safe(key)}.card", opened) for key in dict.fromkeys(_all_keys(requests))}
        free = {key: [unit for unit in range(UNITS) if _lock(file, unit)] for key, file in files.items()}
        found = allotted(free, requests, time.monotonic())
        for key, units in free.items():
            for unit in units:
                if not found or unit not in found.get(key, ()):
                    fcntl.lockf(files[key], fcntl.LOCK_UN, 1, unit)
        if found:
            stack.push(opened.pop_all())
        return found


def _all_keys(requests: Sequence[Request]) -> Iterator[str]:
    for request in requests:
        yield from request.cards


def _lock(file: int, unit: int) -> bool:
    """Lock one byte of a file; False if another process has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, unit)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, as the system likes
        return False
    return True


@contextmanager
def _alone(folder: Path, look: Callable[[], None]) -> Iterator[None]:
    """One process of this machine at a time, for the milliseconds of a look at who has what."""
    with ExitStack() as opened:
        file = _opened(folder / "turn", opened)
        while not _lock(file, 0):
            time.sleep(0.005)
            look()
        yield


@contextmanager
def _ticket(folder: Path, request: Request) -> Iterator[int]:
    """A ticket with the next number, which lives as long as this process waits."""
    number = max((one for one, _ in _tickets(folder)), default=0) + 1
    path = folder / f"{number}.waiting"
    with ExitStack() as opened:
        file = _opened(path, opened)
        _lock(file, 0)
        os.truncate(file, 0)
        os.write(file, json.dumps(asdict(request)).encode())
        try:
            yield number
        finally:
            path.unlink(missing_ok=True)


def _older(folder: Path, number: int) -> Iterator[Request]:
    """Requests of living processes with lower numbers, oldest first. Tickets of the dead are removed."""
    for other, path in _tickets(folder):
        if other >= number:
            continue
        with ExitStack() as opened:
            try:
                file = _opened(path, opened)
                is_dead = _lock(file, 0)
                described = json.loads(os.pread(file, 1 << 16, 0))
                if not is_dead:
                    yield Request(**described | {"cards": tuple(described["cards"])})
            except (SlotError, ValueError, TypeError, KeyError):  # not by this version of the program
                continue
            if is_dead:
                _remove(path)


def _tickets(folder: Path) -> list[tuple[int, Path]]:
    """Tickets by number, lowest first."""
    found = ((re.fullmatch(r"(\d+)\.waiting", path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except PermissionError:  # another user's
        return


def _folder() -> Path:
    """Where the lock files of this machine lie, or of this job of a cluster."""
    job = next((f"{name}-{os.environ[name]}" for name in SCHEDULERS if os.environ.get(name)), "machine")
    base = Path(os.environ.get(FOLDER) or "/tmp/robust-transfer-gpus")
    folder = base / _safe(job)
    try:
        for path in (base, folder):
            if not path.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(0o1777)  # for all users of the machine
    except OSError as error:
        raise SlotError(f"{folder}: no lock files for GPUs can be made there ({error}); set {FOLDER}") from error
    return folder


def _opened(path: Path, stack: ExitStack) -> int:
    """A file's descriptor, open until `stack` is closed; a new file may be locked by all users."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            file = os.open(path, flags)
        except FileNotFoundError:
            file = os.open(path, flags | os.O_CREAT, 0o666)
            os.fchmod(file, 0o666)
    except OSError as error:
        raise SlotError(f"{path}: cannot be opened to lock a GPU ({error}); remove it, or set {FOLDER}") from error
    stack.callback(os.close, file)
    return file


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _names(cards: Sequence[Card]) -> str:
    return ", ".join(card.name for card in cards)


def _wish(request: Request) -> str:
    part = "" if request.units == UNITS else f"{request.units}/{UNITS} of "
    return f"other jobs have the GPUs: {part}{request.count} of {len(request.cards)} is not free"
