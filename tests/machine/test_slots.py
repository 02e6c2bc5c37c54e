"""Which job gets which GPU: who is served first, in thought; and processes that take cards, wait, and are killed."""

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from robust_transfer.machine import slots
from robust_transfer.machine.cards import Card
from robust_transfer.machine.slots import PASSING, SCHEDULERS, UNITS, Request, SlotError, allotted, taken
from support.gpus import UUIDS
from support.processes import first_line, start

A, B, C = "a", "b", "c"
FREE = list(range(UNITS))


def request(count: int = 1, jobs: int = 1, cards: Sequence[str] = (A, B), since: float = 0) -> Request:
    return Request(tuple(cards), count, UNITS // jobs, since)


class TestAllotted:
    def test_the_emptiest_card_is_taken(self) -> None:
        assert allotted({A: FREE[:12], B: FREE}, [request(jobs=4)], 0) == {B: FREE[:6]}
        assert allotted({A: FREE[:12], B: FREE[6:]}, [request(jobs=4)], 0) == {B: FREE[6:12]}

    def test_a_card_of_its_own_must_be_free_as_a_whole(self) -> None:
        assert allotted({A: FREE[1:], B: FREE[1:]}, [request()], 0) is None
        assert allotted({A: FREE[1:], B: FREE}, [request()], 0) == {B: FREE}

    def test_several_are_given_at_once_or_not_at_all(self) -> None:
        assert allotted({A: FREE, B: FREE}, [request(2)], 0) == {A: FREE, B: FREE}
        assert allotted({A: FREE, B: FREE[1:]}, [request(2)], 0) is None

    def test_equals_are_served_in_their_order(self) -> None:
        free = {A: FREE, B: []}
        assert allotted(free, [request()], 0) == {A: FREE}
        assert allotted(free, [request(), request()], 0) is None

    def test_one_that_other_cards_must_serve_is_not_waited_for(self) -> None:
        assert allotted({A: [], B: FREE}, [request(cards=[A]), request(cards=[A, B])], 1e9) == {B: FREE}

    def test_a_smaller_one_may_pass_one_that_cannot_be_served_and_not_for_ever(self) -> None:
        free, waiting, small = {A: FREE[12:], B: FREE[18:]}, request(since=100), request(jobs=4)
        assert allotted(free, [waiting, small], 100 + PASSING - 1) == {A: FREE[12:18]}
        assert allotted(free, [waiting, small], 100 + PASSING) == {B: FREE[18:]}  # the emptier one is kept
        both = request(2, since=100)
        assert allotted(free, [both, small], 100 + PASSING) is None

    def test_jobs_that_share_fill_a_card_exactly(self) -> None:
        for jobs in (1, 2, 3, 4, 6, 8, 12, 24):
            left, served = {A: list(FREE)}, 0
            while found := allotted(left, [request(jobs=jobs, cards=[A])], 0):
                left[A] = [unit for unit in left[A] if unit not in found[A]]
                served += 1
            assert served == jobs


HOLDER = """
    import os, sys, time
    from robust_transfer.machine import slots
    from robust_transfer.machine.cards import Card
    slots.PASSING = float(sys.argv[4])
    names = sys.argv[1].split(",")
    with slots.taken([Card(name, name) for name in names], int(sys.argv[2]), int(sys.argv[3])) as cards:
        print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
        sys.stdin.readline()
"""


class Job:
    """A process that takes cards, prints them, and holds them until it is told to end."""

    def __init__(self, folder: Path, count: int = 1, jobs: int = 1, cards: Sequence[str] = (A, B), passing: float = 60):
        variables = {"ROBUST_TRANSFER_SLOTS": str(folder)}
        self.process = start(HOLDER, ",".join(cards), count, jobs, passing, variables=variables)
        self.names = ""

    def cards(self) -> str:
        """What it has got, once it has."""
        self.names = self.names or first_line(self.process.stdout)
        return self.names

    def end(self) -> None:
        self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in SCHEDULERS:
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "slots"


@pytest.fixture
def started(folder: Path) -> Iterator[list[Job]]:
    jobs: list[Job] = []
    yield jobs
    for job in jobs:
        job.kill()


def waiting(folder: Path) -> int:
    return len(list(folder.glob("machine/*.waiting")))


def wait_for(number: int, folder: Path) -> None:
    """Until so many jobs have looked and wait."""
    deadline = time.monotonic() + 60
    while waiting(folder) != number:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_each_job_has_a_card_and_the_next_waits(folder: Path, started: list[Job]) -> None:
    started += [Job(folder), Job(folder)]
    assert {job.cards() for job in started} == {A, B}
    started.append(Job(folder))
    wait_for(1, folder)
    started[0].end()
    assert started[2].cards() in (A, B)
    wait_for(0, folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_card_is_free_once_its_holder_is_dead(number: signal.Signals, folder: Path, started: list[Job]) -> None:
    started += [Job(folder, cards=[A])]
    assert started[0].cards() == A
    started.append(Job(folder, cards=[A]))
    wait_for(1, folder)
    started[0].process.send_signal(number)
    assert started[1].cards() == A


def test_a_dead_one_that_waited_is_waited_for_by_nobody(folder: Path, started: list[Job]) -> None:
    started += [Job(folder, cards=[A])]
    assert started[0].cards() == A
    started.append(Job(folder, 2, passing=0))  # would keep B for itself
    wait_for(1, folder)
    started.append(Job(folder, passing=0))
    wait_for(2, folder)
    started[1].kill()
    assert started[2].cards() == B
    wait_for(0, folder)  # the dead one's ticket too is gone


def test_jobs_that_share_cards_are_spread_and_counted(folder: Path, started: list[Job]) -> None:
    for _ in range(4):
        started.append(Job(folder, jobs=2))
        started[-1].cards()
    assert sorted(job.names for job in started) == [A, A, B, B]
    assert started[0].names != started[1].names
    started.append(Job(folder, jobs=2))
    wait_for(1, folder)
    started[1].end()
    assert started[4].cards() == started[1].names


def test_who_wants_several_has_them_at_once_and_nobody_starves(folder: Path, started: list[Job]) -> None:
    """A stream of jobs with a card each, and between them two that want both: in any order, all come to their end."""
    started += [Job(folder), Job(folder)]
    assert {job.cards() for job in started} == {A, B}
    both = [Job(folder, 2, passing=0.5), Job(folder, 2, passing=0.5)]
    started += both
    wait_for(2, folder)
    small = [Job(folder, passing=0.5) for _ in range(3)]
    started += small
    wait_for(5, folder)
    time.sleep(0.6)  # from now on cards are kept for those who want both
    started[0].end()
    time.sleep(1.5)
    assert waiting(folder) == 5  # none of the small ones took it
    started[1].end()
    order: list[Job] = []
    while len(order) < 5:
        for job in [*both, *small]:
            if job not in order and job.process.poll() is None and readable(job):
                assert job.cards() in ({"a,b"} if job in both else {A, B})
                order.append(job)
                job.end()
    assert set(order[:2]) == set(both)


def readable(job: Job) -> bool:
    return bool(select.select([job.process.stdout or 0], [], [], 0.05)[0])


def test_equal_jobs_are_served_in_their_order(folder: Path, started: list[Job]) -> None:
    started.append(Job(folder, cards=[A]))
    assert started[0].cards() == A
    for number in range(1, 5):
        started.append(Job(folder, cards=[A]))
        wait_for(number, folder)
    for before, after in pairwise(started):
        before.end()
        assert after.cards() == A


def test_many_at_once_never_have_a_card_twice(folder: Path, tmp_path: Path) -> None:
    """Twelve processes, one to three cards each, who mark their cards with a file that must not be there."""
    code = """
        import os, random, sys, time
        from pathlib import Path
        from robust_transfer.machine import slots
        from robust_transfer.machine.cards import Card
        marks, draws = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
        slots.PASSING, slots.POLL = 0.3, 0.01
        for _ in range(8):
            with slots.taken([Card(name, name) for name in "abc"], draws.choice([1, 1, 2, 3]), 1) as cards:
                for card in cards:
                    (marks / card.name).touch(exist_ok=False)
                time.sleep(draws.uniform(0, 0.01))
                for card in cards:
                    (marks / card.name).unlink()
        print("done")
    """
    marks = tmp_path / "marks"
    marks.mkdir()
    processes = [start(code, marks, seed, variables={"ROBUST_TRANSFER_SLOTS": str(folder)}) for seed in range(12)]
    for process in processes:
        printed, errors = process.communicate(timeout=100)
        assert printed == "done\n", errors


def test_what_was_exported_is_taken_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUST_TRANSFER_SLOTS", str(folder))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    with taken([Card("2", UUIDS[0]), Card("5", UUIDS[1])], 1, 1) as cards:
        assert [card.name for card in cards] == ["2"]
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,5"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with taken([Card(UUIDS[0], UUIDS[0])], 1, 1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == UUIDS[0]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_one_card_by_two_names_is_one_card(folder: Path, started: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUST_TRANSFER_SLOTS", str(folder))
    started.append(Job(folder, cards=[UUIDS[0]]))
    assert started[0].cards() == UUIDS[0]
    with pytest.raises(TimeoutError), taken([Card("0", UUIDS[0])], 1, 1, look=give_up):
        pass
    assert waiting(folder) == 0


def give_up() -> None:
    raise TimeoutError


def test_jobs_of_a_scheduler_have_cards_of_their_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose cards may be called 0 in each of them."""
    monkeypatch.setenv("ROBUST_TRANSFER_SLOTS", str(folder))
    for job in ("17", "18"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        slots._folder()
    assert {path.name for path in folder.iterdir()} == {"SLURM_JOB_ID-17", "SLURM_JOB_ID-18"}


@pytest.mark.parametrize(
    ("cards", "count", "message"),
    [
        ([UUIDS[0]], 2, r"2 GPUs are asked for, and 1 can be used \(GPU-1.*--set-resources pretraining:gpu=1"),
        (["MIG-1", "MIG-2"], 2, r"MIG instances \(MIG-1, MIG-2\), which cannot train together; ask for one"),
    ],
)
def test_what_cannot_be_had_is_said_at_once(cards: list[str], count: int, message: str) -> None:
    with pytest.raises(SlotError, match=message), taken([Card(name, name) for name in cards], count, 1):
        pass


def test_a_link_in_the_place_of_a_lock_is_not_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBUST_TRANSFER_SLOTS", str(folder))
    victim = folder.with_name("victim")
    victim.write_text("x")
    (slots._folder() / "a.card").symlink_to(victim)
    with pytest.raises(SlotError, match=r"a\.card: cannot be opened to lock a GPU .* set ROBUST_TRANSFER_SLOTS"):
        taken([Card(A, A)], 1, 1).__enter__()


@pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user")
def test_users_share_the_cards_of_a_machine(folder: Path) -> None:
    """With lock files that belong to one of them."""
    folder = Path(tempfile.mkdtemp())  # pytest's own are closed to others
    folder.chmod(0o1777)
    job = Job(folder, cards=[A])
    assert job.cards() == A
    code = f"""if True:
        import os, sys
        sys.path.insert(0, {str(Path(slots.__file__).parents[2])!r})
        from robust_transfer.machine import slots
        from robust_transfer.machine.cards import Card
        os.setgid(65534), os.setuid(65534)
        def look(): print("waits", flush=True), os._exit(0)
        with slots.taken([Card("a", "a"), Card("b", "b")], 1, 1, look=look):
            print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
        with slots.taken([Card("a", "a")], 1, 1, look=look):
            print("has it")
    """
    environment = os.environ | {"ROBUST_TRANSFER_SLOTS": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    job.kill()
    shutil.rmtree(folder)
    assert done.stdout.split() == ["b", "waits"], done.stderr
