"""Killed anywhere and started again, a training ends with the same bits; damaged, foreign and unwritable states."""

import json
import logging
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from robust_transfer import cli
from robust_transfer.configuration.running import VARIABLE
from robust_transfer.configuration.training import PretrainingSettings
from robust_transfer.resuming import states
from robust_transfer.resuming.interruption import EXIT_CODE, Interrupted
from robust_transfer.stages import pretraining
from robust_transfer.store.entry import StoreError, open_entry, read_json
from support.paths import WORKFLOW
from support.prepared_datasets import new_entry, squares, written

EVERY_STEP = json.dumps({"save_seconds": 0})


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    images, labels = squares(96)
    return written(tmp_path_factory.mktemp("source"), list(images.numpy()), labels.tolist())


def settings(**training):
    """Everything that a state must hold, in one recipe: groups, an average, growing images, augmentation."""
    return PretrainingSettings.model_validate(
        {
            "architecture": "resnet8_w4",
            "input_size": 16,
            "preprocessing": {"resize_ratio": 1.0},
            "norm": "l2",
            "eps": "0.5",
            "seed": 0,
            "recipe": "test",
            "training": {
                **{"epochs": 3, "batch_size": 12, "batchnorm_group": 6, "learning_rate": 0.1, "precision": "bf16"},
                **{"schedule": "one-cycle", "average_decay": 0.8, "average_images": 24, "start_scale": 0.5},
                **training,
            },
            "attack": {"steps": 2, "random_start": True},
            "check": {"images": 6, "steps": 2},
        }
    ).model_dump(mode="json")


def entry_of(source, **training):
    return new_entry(source.path.parents[2], "pretraining", settings(**training), source=source)


@pytest.fixture(scope="module")
def uninterrupted(source):
    entry = entry_of(source)
    pretraining.run(entry, threads=1, device="cpu")
    return entry.path


def same_outputs(path, expected):
    """Bytes of the weights, of the rows, and all that the card says of them."""
    for name in ("weights.safetensors", "epochs.csv"):
        assert (path / name).read_bytes() == (expected / name).read_bytes(), name
    assert read_json(path / "card.json")["facts"] == read_json(expected / "card.json")["facts"]
    assert sorted(found.name for found in path.iterdir() if found.name.startswith(".")) == [".lock"]


def start(entry, *options, running=EVERY_STEP, log=None):
    """The stage in a process of its own that is forked from this one, so that it starts at once."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.environ[VARIABLE] = running
        logging.getLogger().handlers.clear()
        command = [entry.stage, str(entry.path), "--threads", "1", "--device", "cpu", *options]
        code = cli.main([*command, "--log", str(log)] if log else command)
    except BaseException:
        code = 99
    os._exit(code)


def ended(pid):
    """Exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def alive(pid):
    return os.waitpid(pid, os.WNOHANG) == (0, 0)


def saving(entry):
    """Is a state being written this moment?"""
    return any((entry.path / ".state").glob(".step-*"))


def saved_steps(entry):
    """Steps of the newest state."""
    return max((int(path.name.split("-")[1]) for path in (entry.path / ".state").glob("step-*")), default=0)


def kill_at(entry, pid, moment, draws):
    """SIGKILL some steps from here: anywhere, while a state is written, or as an epoch ends.

    False if the training was done before.
    """
    log = entry.path / "test.log"
    epochs, first = (log.read_text().count(" left") if log.exists() else 0), saved_steps(entry)
    moments = {
        "any": lambda: saved_steps(entry) >= first + steps,
        "save": lambda: saved_steps(entry) >= first + steps and saving(entry),
        "epoch": lambda: log.exists() and log.read_text().count(" left") > epochs,
    }
    steps = draws.randrange(4)
    while not moments[moment]():
        done = os.waitpid(pid, os.WNOHANG)
        if done != (0, 0):
            assert os.waitstatus_to_exitcode(done[1]) == 0, log.read_text()
            return False
    time.sleep(draws.choice([0, draws.uniform(0, 0.03)]))
    os.kill(pid, signal.SIGKILL)
    return ended(pid) != 0


def killed_until_done(entry, draws, most=50):
    """How often the training was killed before it was let finish."""
    for kills in range(most):
        pid = start(entry, log=entry.path / "test.log")
        if not kill_at(entry, pid, draws.choice(["any", "any", "save", "epoch"]), draws):
            return kills
    assert ended(start(entry, log=entry.path / "test.log")) == 0, (entry.path / "test.log").read_text()
    return most


def test_killed_at_random_it_ends_with_the_same_bits(source, uninterrupted):
    entry, draws = entry_of(source), random.Random(0)
    kills = killed_until_done(entry, draws, most=8)
    same_outputs(entry.path, uninterrupted)
    assert kills >= 3
    assert "going on at step" in (entry.path / "test.log").read_text()


@pytest.mark.faults
def test_a_hundred_kills_change_no_bit(source, uninterrupted, capsys):
    kills, trainings, draws = 0, 0, random.Random(1)
    while kills < 100:
        entry = entry_of(source)
        kills += killed_until_done(entry, draws)
        trainings += 1
        same_outputs(entry.path, uninterrupted)
    with capsys.disabled():
        print(f"\n{kills} kills in {trainings} trainings: 0 bits changed")


class TestTeams:
    def command(self, entry, every=0.0):
        environment = os.environ | {"PYTHONPATH": str(WORKFLOW), VARIABLE: json.dumps({"save_seconds": every})}
        command = [sys.executable, "-m", "robust_transfer", "pretraining", str(entry.path), "--processes", "2"]
        log = open(entry.path / "test.log", "a")  # noqa: SIM115
        return subprocess.Popen([*command, "--device", "cpu"], env=environment, stdout=log, stderr=log)

    def wait_for_steps(self, entry, process, steps):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            found = [int(path.name.split("-")[1]) for path in (entry.path / ".state").glob("step-*")]
            if found and max(found) >= steps:
                return
            time.sleep(0.005)

    def expected(self, source):
        entry = entry_of(source)
        assert self.command(entry, every=1000).wait(180) == 0, (entry.path / "test.log").read_text()
        return entry.path

    def killed(self, source, expected, at, whom):
        entry = entry_of(source)
        process = self.command(entry)
        self.wait_for_steps(entry, process, at)
        if whom == "launcher":
            process.kill()
        else:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[whom]), signal.SIGKILL)
        process.wait(60)
        assert not (entry.path / "card.json").exists()
        deadline = time.monotonic() + 30  # until the kernel has ended what belonged to it
        while self.command(entry).wait(180) != 0:
            assert time.monotonic() < deadline, (entry.path / "test.log").read_text()
        same_outputs(entry.path, expected)
        return entry

    @pytest.mark.skipif(sys.platform != "linux", reason="finds the team's processes in /proc")
    def test_two_processes_killed_and_started_again(self, source):
        expected = self.expected(source)
        entry = self.killed(source, expected, at=5, whom=1)
        assert "going on at step" in (entry.path / "test.log").read_text()

    @pytest.mark.faults
    @pytest.mark.skipif(sys.platform != "linux", reason="finds the team's processes in /proc")
    def test_two_processes_killed_again_and_again(self, source):
        expected, draws = self.expected(source), random.Random(2)
        for _ in range(10):
            self.killed(source, expected, at=draws.randrange(1, 23), whom=draws.choice(["launcher", 0, 1]))

    def test_a_signal_reaches_all_of_them(self, source):
        entry = entry_of(source)
        process = self.command(entry, every=1000)
        log = entry.path / "test.log"
        deadline = time.monotonic() + 120
        while "epoch 1/3" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == EXIT_CODE, log.read_text()
        assert "SIGUSR1 received: saved at step" in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_leaves(source, uninterrupted, number):
    entry = entry_of(source)
    log = entry.path / "test.log"
    pid = start(entry, running=json.dumps({"save_seconds": 1000}), log=log)
    while "epoch 1/3" not in (log.read_text() if log.exists() else ""):
        assert alive(pid), log.read_text()
        time.sleep(0.005)
    os.kill(pid, number)
    assert ended(pid) == EXIT_CODE
    said = log.read_text()
    assert re.search(rf"{number.name} received: saved at step \d+; run the same command to go on", said)
    assert not (entry.path / "card.json").exists()
    assert ended(start(entry, log=log)) == 0
    assert "going on at step" in log.read_text()
    same_outputs(entry.path, uninterrupted)


def test_a_deadline_saves_and_leaves(source, uninterrupted, monkeypatch):
    entry = entry_of(source)
    log = entry.path / "test.log"
    assert ended(start(entry, "--stop-before", "2020-01-01T00:00", log=log)) == EXIT_CODE
    assert "the time limit is near: saved at step 1" in log.read_text()
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 60))
    assert ended(start(entry, log=log)) == EXIT_CODE
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    assert ended(start(entry, log=log)) == 0
    same_outputs(entry.path, uninterrupted)


def test_a_time_that_is_none_is_named(source, capsys):
    with pytest.raises(SystemExit):
        cli.main(["pretraining", str(entry_of(source).path), "--stop-before", "tomorrow"])
    assert "--stop-before: tomorrow: not a time; write it as 2030-01-31T08:00" in capsys.readouterr().err


def stopped(source, steps=5, monkeypatch=None, **training):
    """An entry whose training has left after so many steps, with its states."""
    entry = entry_of(source, **training)
    asked = iter(["save"] * (steps - 1) + ["stop"])
    monkeypatch.setattr(states.States, "wanted", lambda self: next(asked))
    with pytest.raises(Interrupted):
        pretraining.run(entry, threads=1, device="cpu")
    monkeypatch.undo()
    return entry


def test_the_last_two_states_are_kept(source, monkeypatch):
    entry = stopped(source, monkeypatch=monkeypatch)
    assert [path.name[:15] for path in sorted((entry.path / ".state").iterdir())] == [
        "step-0000000004",
        "step-0000000005",
    ]


@pytest.mark.parametrize("damage", ["cut short", "a bit", "emptied"])
def test_a_damaged_state_is_noticed_and_the_one_before_used(source, uninterrupted, monkeypatch, caplog, damage):
    entry = stopped(source, monkeypatch=monkeypatch)
    newest = max((entry.path / ".state").iterdir())
    content = bytearray(newest.read_bytes())
    if damage == "a bit":
        content[len(content) // 2] ^= 1
    newest.write_bytes(content if damage == "a bit" else content[: len(content) // 2 if damage == "cut short" else 0])
    with caplog.at_level(logging.INFO, "robust_transfer"):
        pretraining.run(entry, threads=1, device="cpu")
    assert f"{newest}: cut short or altered; the one of step 4 is used" in caplog.text
    assert "going on at step 4" in caplog.text
    same_outputs(entry.path, uninterrupted)


def test_with_all_states_damaged_it_starts_over(source, uninterrupted, monkeypatch, caplog):
    entry = stopped(source, monkeypatch=monkeypatch)
    for path in (entry.path / ".state").iterdir():
        path.write_bytes(b"")
    pretraining.run(entry, threads=1, device="cpu")
    assert "starting over" in caplog.text
    same_outputs(entry.path, uninterrupted)


def test_a_state_of_another_entry_is_refused(source, monkeypatch):
    entry, other = stopped(source, monkeypatch=monkeypatch), entry_of(source, learning_rate=0.2)
    (entry.path / ".state").rename(other.path / ".state")
    with pytest.raises(StoreError, match=rf"a state of {entry.name}, not of {other.name}; move"):
        pretraining.run(other, threads=1, device="cpu")


def test_a_state_of_other_code_is_refused_unless_allowed(source, monkeypatch):
    entry = stopped(source, monkeypatch=monkeypatch)
    now = states.module_fingerprints("pretraining")
    monkeypatch.setattr(states, "module_fingerprints", lambda stage: now | {"attacks": "000000000000"})
    with pytest.raises(StoreError, match=r"saved by other code \(changed since: attacks\).*--other-code"):
        pretraining.run(entry, threads=1, device="cpu")
    monkeypatch.setenv(VARIABLE, json.dumps({"other_code": True}))
    pretraining.run(entry, threads=1, device="cpu")
    assert open_entry(entry.path).facts()["resumed"] == [{"code": ["attacks"]}]


def test_another_number_of_threads_is_said_and_recorded(source, monkeypatch, caplog):
    entry = stopped(source, monkeypatch=monkeypatch)
    pretraining.run(entry, threads=2, device="cpu")
    assert "saved with threads 1, now 2: the result may differ in its last bits" in caplog.text
    assert open_entry(entry.path).facts()["resumed"] == [{"threads": [1, 2]}]


def test_a_disk_that_is_full_is_said_and_costs_nothing(source, uninterrupted, monkeypatch):
    """A limit on file sizes fails a write half way, as a full disk does."""
    entry = stopped(source, monkeypatch=monkeypatch)
    before = {path.name: path.read_bytes() for path in (entry.path / ".state").iterdir()}
    log = entry.path / "test.log"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        pid = start(entry, log=log)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ended(pid) == 1  # the weights cannot be written either
    assert re.search(
        r"state not saved, training goes on, and the last good state stays: .*step-0000000006", log.read_text()
    )
    assert re.search(
        r"StoreError: .*weights.safetensors: [\d,]+ bytes could not be written \(File too large", log.read_text()
    )
    assert {path.name: path.read_bytes() for path in (entry.path / ".state").iterdir()} == before
    assert ended(start(entry, log=log)) == 0
    same_outputs(entry.path, uninterrupted)


def test_a_save_that_takes_long_is_followed_by_a_long_pause(source):
    entry = entry_of(source)
    (entry.path / ".state").mkdir()

    class Never:
        reason = None

    slow = states.States(entry, every=0.001, interruption=Never(), setting={})
    time.sleep(0.002)
    assert slow.wanted() == "save"
    assert slow.save(1, {}, {})
    assert slow.wanted() is None  # a twentieth of the time at most goes into saving


def test_a_loss_that_is_not_finite_is_never_saved(source):
    entry = entry_of(source, learning_rate=1e30)
    log = entry.path / "test.log"
    assert ended(start(entry, log=log)) == 1
    assert "loss-not-finite: the loss is" in log.read_text()
    kept = [int(path.name.split("-")[1]) for path in (entry.path / ".state").iterdir()]
    assert max(kept, default=0) < 4
