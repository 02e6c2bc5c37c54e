"""A training killed at any moment and restarted ends with the same bits; damaged, foreign and unwritable states."""

import json
import logging
import os
import random
import re
import resource
import signal
import sys
import time
from functools import partial

import pytest
from robust_transfer import cli
from robust_transfer.configuration.running import VARIABLE
from robust_transfer.resuming import states
from robust_transfer.resuming.interruption import EXIT_CODE, Interrupted, Interruption
from robust_transfer.stages import pretraining
from robust_transfer.store.entry import StoreError, open_entry
from robust_transfer.store.fingerprint import module_fingerprints
from support.kills import (
    NEVER,
    assert_same_outputs,
    finish,
    kill_until_done,
    kills_until,
    moment_in_training,
    said,
    saved_steps,
    start,
    wait_until,
)
from support.prepared_datasets import new_entry, squares_entry
from support.training import pretraining_settings


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return squares_entry(tmp_path_factory.mktemp("source"))


def settings(**training):
    """A recipe with everything that a state must hold: groups, an average, growing images, augmentation."""
    return pretraining_settings(
        {
            **{"epochs": 3, "batch_size": 12, "batchnorm_group": 6, "learning_rate": 0.1, "precision": "bf16"},
            **{"schedule": "one-cycle", "average_decay": 0.8, "average_images": 24, "start_scale": 0.5},
            **training,
        }
    )


def entry_of(source, **training):
    return new_entry(source.path.parents[2], "pretraining", settings(**training), source=source)


@pytest.fixture(scope="module")
def uninterrupted(source):
    entry = entry_of(source)
    pretraining.run(entry, threads=1, device="cpu")
    return entry


def test_killed_at_random_it_ends_with_the_same_bits(source, uninterrupted):
    entry = entry_of(source)
    kills = kill_until_done(entry, moment_in_training, random.Random(0), most=8)
    assert_same_outputs(entry, uninterrupted)
    assert kills >= 3
    assert "going on at step" in said(entry)


@pytest.mark.faults
def test_a_hundred_kills_change_no_bit(source, uninterrupted, capsys):
    kills, trainings = kills_until(100, lambda: entry_of(source), uninterrupted, moment_in_training, random.Random(1))
    with capsys.disabled():
        print(f"\n{kills} kills in {trainings} trainings: 0 bits changed")


TWO = ("--processes", "2")


@pytest.fixture(scope="module")
def by_two(source):
    entry = entry_of(source)
    assert start(entry, *TWO, running=NEVER).wait() == 0, said(entry)
    return entry


@pytest.mark.skipif(sys.platform != "linux", reason="finds the team's processes in /proc")
class TestTeams:
    """Trainings of two processes that a third launches."""

    def kill(self, source, by_two, at, whom):
        """Kill the launcher, or one of the two, once `at` steps are saved; then run it to its end."""
        entry = entry_of(source)
        process = start(entry, *TWO)
        wait_until(process, lambda: saved_steps(entry) >= at)
        if whom == "launcher":
            process.kill()
        else:
            os.kill(process.children()[whom], signal.SIGKILL)
            assert process.wait() != 0
        assert not (entry.path / "card.json").exists()
        deadline = time.monotonic() + 30  # until the kernel has ended the launcher's children, which hold the lock
        while start(entry, *TWO).wait() != 0:
            assert time.monotonic() < deadline, said(entry)
        assert_same_outputs(entry, by_two)
        return entry

    @pytest.mark.faults  # 11 s
    def test_two_processes_killed_and_started_again(self, source, by_two):
        entry = self.kill(source, by_two, at=5, whom=1)
        assert "going on at step" in said(entry)

    @pytest.mark.faults
    def test_two_processes_killed_again_and_again(self, source, by_two):
        draws = random.Random(2)
        for _ in range(10):
            self.kill(source, by_two, at=draws.randrange(1, 23), whom=draws.choice(["launcher", 0, 1]))

    def test_a_signal_reaches_all_of_them(self, source):
        entry = interrupted(source, signal.SIGUSR1, *TWO)
        assert "SIGUSR1 received: saved at step" in said(entry)


def logged(entry, words):
    return words in said(entry)


def interrupted(source, number, *arguments):
    """A training that a signal ended between two steps; where one was done before the signal came, another one."""
    for _ in range(10):
        entry = entry_of(source)
        # Under nohup tests ignore SIGHUP, and so would the training.
        process = start(entry, *arguments, running=NEVER, before=partial(signal.signal, number, signal.SIG_DFL))
        wait_until(process, partial(logged, entry, "epoch 1/3"))
        if (status := process.send(number)) != 0:
            assert status == EXIT_CODE, said(entry)
            return entry
        assert (entry.path / "card.json").exists(), said(entry)
    raise AssertionError("ten trainings were done before the signal came")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_exits(source, uninterrupted, number):
    entry = interrupted(source, number)
    assert re.search(rf"{number.name} received: saved at step \d+; run the same command to go on", said(entry))
    assert not (entry.path / "card.json").exists()
    finish(entry)
    assert "going on at step" in said(entry)
    assert_same_outputs(entry, uninterrupted)


def test_a_deadline_saves_and_exits(source, uninterrupted, monkeypatch):
    entry = entry_of(source)
    assert start(entry, "--stop-before", "2020-01-01T00:00").wait() == EXIT_CODE
    assert "the time limit is near: saved at step 1" in said(entry)
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time())))
    assert start(entry).wait() == EXIT_CODE
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    finish(entry)
    assert_same_outputs(entry, uninterrupted)


def test_an_invalid_time_is_named(source, capsys):
    with pytest.raises(SystemExit):
        cli.main(["pretraining", str(entry_of(source).path), "--stop-before", "tomorrow"])
    assert "--stop-before: tomorrow: not a time; write it as 2030-01-31T08:00" in capsys.readouterr().err


def stopped(source, monkeypatch, steps=5, **training):
    """An entry whose training has saved and exited after `steps` steps."""
    entry = entry_of(source, **training)
    asked = iter(["save"] * (steps - 1) + ["stop"])
    monkeypatch.setattr(states.States, "wanted", lambda self: next(asked))
    with pytest.raises(Interrupted):
        pretraining.run(entry, threads=1, device="cpu")
    monkeypatch.undo()
    return entry


def test_the_last_two_states_are_kept(source, monkeypatch):
    entry = stopped(source, monkeypatch)
    assert [path.name[:15] for path in sorted((entry.path / ".state").iterdir())] == [
        "step-0000000004",
        "step-0000000005",
    ]


@pytest.mark.parametrize("damage", ["cut short", "a bit", "emptied"])
def test_a_damaged_state_is_noticed_and_the_one_before_used(source, uninterrupted, monkeypatch, caplog, damage):
    entry = stopped(source, monkeypatch)
    newest = max((entry.path / ".state").iterdir())
    content = bytearray(newest.read_bytes())
    if damage == "a bit":
        content[len(content) // 2] ^= 1
    newest.write_bytes(content if damage == "a bit" else content[: len(content) // 2 if damage == "cut short" else 0])
    with caplog.at_level(logging.INFO, "robust_transfer"):
        pretraining.run(entry, threads=1, device="cpu")
    assert f"{newest}: cut short or altered; the one of step 4 is used" in caplog.text
    assert "going on at step 4" in caplog.text
    assert_same_outputs(entry, uninterrupted)


def test_with_all_states_damaged_it_starts_over(source, uninterrupted, monkeypatch, caplog):
    entry = stopped(source, monkeypatch)
    for path in (entry.path / ".state").iterdir():
        path.write_bytes(b"")
    pretraining.run(entry, threads=1, device="cpu")
    assert "starting over" in caplog.text
    assert_same_outputs(entry, uninterrupted)


def test_a_state_of_another_entry_is_refused(source, monkeypatch):
    entry, other = stopped(source, monkeypatch), entry_of(source, learning_rate=0.2)
    (entry.path / ".state").rename(other.path / ".state")
    with pytest.raises(StoreError, match=rf"a state of {entry.name}, not of {other.name}; to start over: rm -r "):
        pretraining.run(other, threads=1, device="cpu")


def test_a_state_of_other_code_is_refused_unless_allowed(source, monkeypatch):
    entry = stopped(source, monkeypatch)
    now = module_fingerprints("pretraining")
    monkeypatch.setattr(states, "module_fingerprints", lambda stage: now | {"attacks": "000000000000"})
    with pytest.raises(StoreError, match=r"saved by other code \(changed since: attacks\).*--other-code"):
        pretraining.run(entry, threads=1, device="cpu")
    monkeypatch.setenv(VARIABLE, json.dumps({"other_code": True}))
    pretraining.run(entry, threads=1, device="cpu")
    assert open_entry(entry.path).facts()["resumed"] == [{"code": ["attacks"]}]


def test_another_number_of_threads_is_logged_and_recorded(source, monkeypatch, caplog):
    entry = stopped(source, monkeypatch, steps=23)  # of 24: two threads on a busy machine wait for each other
    pretraining.run(entry, threads=2, device="cpu")
    assert "saved with threads 1, now 2: the result may differ in its last bits" in caplog.text
    assert open_entry(entry.path).facts()["resumed"] == [{"threads": [1, 2]}]


def test_a_full_disk_is_logged_and_loses_no_state(source, uninterrupted, monkeypatch):
    """A limit on file sizes fails a write half way, as a full disk does."""
    entry = stopped(source, monkeypatch)
    before = {path.name: path.read_bytes() for path in (entry.path / ".state").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        process = start(entry)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert process.wait() == 1  # the weights cannot be written either
    log = said(entry)
    assert re.search(r"state not saved, training goes on, and the last good state stays: .*step-0000000006", log)
    assert re.search(r"StoreError: .*weights.safetensors: [\d,]+ bytes could not be written \(File too large", log)
    assert {path.name: path.read_bytes() for path in (entry.path / ".state").iterdir()} == before
    finish(entry)
    assert_same_outputs(entry, uninterrupted)


def test_a_slow_save_delays_the_next(source):
    entry = entry_of(source)
    (entry.path / ".state").mkdir()

    slow = states.States(entry, every=0.001, interruption=Interruption(), setting={})
    time.sleep(0.002)
    assert slow.wanted() == "save"
    assert slow.save(1, {}, {})
    assert slow.wanted() is None  # a twentieth of the time at most goes into saving


def test_a_loss_that_is_not_finite_is_never_saved(source):
    entry = entry_of(source, learning_rate=1e30)
    assert start(entry).wait() == 1
    assert "loss-not-finite: the loss is" in said(entry)
    assert saved_steps(entry) < 4
