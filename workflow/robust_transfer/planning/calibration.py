"""Measure the speed of a device with the project's own code: every kind of pass, and the smallest job of every stage.

    python -m robust_transfer.planning.calibration WANTED.json MEASURED.json

is one process of it. `calibrate` starts as many as jobs will run side by side, since they slow each other down. Passes
are timed on random images in memory, starts by running a tiny experiment stage by stage, as Snakemake would. On a CPU
the processor time of the job's single thread is measured, which depends less on what else the machine does; on a GPU,
wall-clock time.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from robust_transfer.planning.rates import Calibrated, RateError
from robust_transfer.planning.work import PASSES, Pass

SLOT_SECONDS = 3.0
"""Upper bound for one kind of pass."""
CAP_SECONDS = 90.0
"""Upper bound for everything, the tiny experiment included; a third of it is always left for passes. The most expensive
passes are measured first, and those for which no time is left are scaled from them."""
CPU_FLOPS = 2e11
"""Upper bound of FLOPs per step on a CPU, a few seconds of one core: batches are made smaller to stay below it."""
CLASSES = 10

TINY: dict[str, Any] = {
    "experiment": "calibration",
    "preprocessing": {"resize_ratio": 1.0},
    "datasets": {
        "source": {"origin": {"kind": "shapes", "task": "objects", "train": 32, "test": 16, "classes": 12}},
        "target": {"origin": {"kind": "shapes", "task": "coarse", "train": 32, "test": 16}},
        "again": {"origin": {"kind": "shapes", "task": "coarse", "train": 16, "test": 16}},
    },
    "source": "source",
    "targets": ["target"],
    "pretraining": {"recipe": "tiny", "training": {"epochs": 1, "batch_size": 16, "augmentation": "none"}},
    "linear_heads": {"training": {"epochs": 1, "batch_size": 16, "augmentation": "none"}},
    "finetuning": {"learning_rates": [0.01], "training": {"epochs": 1, "batch_size": 16, "augmentation": "none"}},
    "robustness": {"eps": [0.1], "images": 8, "attack": {"steps": 1}},
    "also_test_on": {"target": [{"dataset": "again"}]},
    "stylizing": {"method": "phase"},
    "cue_conflict": {"images": {"kind": "shapes", "images": 40}},
    "gallery": {"images": 2, "perturbations": [0.5], "inversion": {"steps": 1}, "visualisation": {"steps": 1}},
}


def calibrate(
    wanted: Mapping[Pass, float],
    batches: Mapping[Pass, int],
    *,
    processes: int = 1,
    device: str = "cpu",
    cap_seconds: float = CAP_SECONDS,
    slot_seconds: float = SLOT_SECONDS,
    starts: bool = True,
) -> Calibrated:
    """Measure `wanted` (images by pass, the most expensive measured first) with batches of the sizes given.

    On a CPU `processes` measure at the same time, one thread each, and their mean counts. `starts` false leaves the
    tiny experiment out. Raises RateError with what a process said if it failed.
    """
    if not wanted:
        raise RateError("--calibrate: nothing is left to do that a network computes, so there is nothing to measure")
    by_cost = sorted(wanted, key=lambda key: -wanted[key] * key.flops)
    asked = {
        "device": device,
        "cap_seconds": cap_seconds,
        "slot_seconds": slot_seconds,
        "starts": starts,
        "passes": [{**key._asdict(), "batch": batches.get(key, 64)} for key in by_cost],
    }
    with tempfile.TemporaryDirectory(prefix="calibration-") as folder:
        question = Path(folder) / "wanted.json"
        question.write_text(json.dumps(asked))
        answers = [Path(folder) / f"measured{i}.json" for i in range(processes if device == "cpu" else 1)]
        command = [sys.executable, "-m", "robust_transfer.planning.calibration", str(question)]
        running = [
            subprocess.Popen([*command, str(answer)], env=_environment(), stderr=subprocess.PIPE, text=True)
            for answer in answers
        ]
        said = [process.communicate()[1] for process in running]
        for process, text in zip(running, said, strict=True):
            if process.returncode:
                raise RateError(f"--calibrate: a process failed with code {process.returncode}:\n{text.strip()}")
        measured = [json.loads(answer.read_text()) for answer in answers]
    return _mean(measured, device)


def _environment() -> dict[str, str]:
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**os.environ, "PYTHONPATH": paths, **threads}


def _mean(measured: list[dict[str, Any]], device: str) -> Calibrated:
    """The mean over processes, of every pass that one of them measured."""
    times: dict[Pass, list[float]] = {}
    for one in measured:
        for row in one["passes"]:
            key = Pass(row["architecture"], row["side"], row["precision"], row["kind"])
            times.setdefault(key, []).append(row["seconds_per_image"])
    starts: dict[str, list[float]] = {}
    for one in measured:
        for stage, seconds in one["starts"].items():
            starts.setdefault(stage, []).append(seconds)
    described = {
        "host": socket.gethostname(),
        "date": datetime.now(UTC).date().isoformat(),
        "torch": measured[0]["torch"],
        "side_by_side": len(measured),
    }
    return Calibrated(
        measured[0]["name"],
        {key: sum(values) / len(values) for key, values in times.items()},
        {stage: sum(values) / len(values) for stage, values in starts.items()},
        sum(one["fitted_seconds"] for one in measured) / len(measured),
        device,
        described,
    )


def measure(asked: dict[str, Any]) -> dict[str, Any]:
    """Measure in this process what `asked` names; returns the times as JSON values."""
    begun = time.monotonic()
    device, cap = asked["device"], float(asked["cap_seconds"])
    passes = [(Pass(row["architecture"], row["side"], row["precision"], row["kind"]), row["batch"])
              for row in asked["passes"]]  # fmt: skip
    smallest = min((key for key, _ in passes), key=lambda key: key.flops / PASSES[key.kind])
    starts = start_seconds(smallest, device) if asked["starts"] else {}
    import torch

    from robust_transfer.machine.devices import device_name

    measured: list[dict[str, Any]] = []
    now = time.monotonic()
    end = max(begun + cap, now + cap / 3)
    slot = min(float(asked["slot_seconds"]), (end - now) / len(passes))
    for key, batch in passes:
        if measured and time.monotonic() > end:
            break
        seconds = seconds_per_image(key, batch, slot, torch.device(device))
        measured.append({**key._asdict(), "seconds_per_image": seconds})
    name = device_name(device) if device == "cuda" else _processor()
    return {
        "name": name,
        "torch": str(torch.__version__),
        "starts": starts,
        "fitted_seconds": fitted_seconds(),
        "passes": measured,
    }


def seconds_per_image(key: Pass, batch: int, slot: float, device: Any) -> float:
    """Seconds per image in such a pass: the median over the steps of `slot` seconds, after two to warm up.

    The median, since other processes on the machine slow some steps down.
    """
    import torch

    from robust_transfer.machine.devices import prepare

    precision: Any = key.precision
    prepare(device.type, 1, precision)
    clock = time.process_time if device.type == "cpu" else time.perf_counter

    if device.type == "cpu":
        batch = max(2, min(batch, int(CPU_FLOPS / key.flops)))
    step = _step(key, batch, device)
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < 3 or time.perf_counter() - begun < slot:
        before = clock()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(clock() - before)
    return statistics.median(taken[2:]) / batch


def _step(key: Pass, batch: int, device: Any) -> Callable[[], None]:
    """A function that does the pass once on a batch, with the code that the stages run."""
    import torch

    from robust_transfer.attacks import L2, Starts
    from robust_transfer.configuration.training import Attack, Recipe
    from robust_transfer.loading.augmentation import as_images
    from robust_transfer.machine.devices import autocast
    from robust_transfer.machine.distributed import ALONE
    from robust_transfer.networks.build import build
    from robust_transfer.networks.layers import activations
    from robust_transfer.training.loop import Adversary, Training

    network = build(key.architecture, CLASSES, input_size=key.side).to(device)
    network = network.to(memory_format=torch.channels_last)
    pixels = torch.randint(0, 256, (batch, key.side, key.side, 3), dtype=torch.uint8, device=device)
    labels = torch.arange(batch, device=device) % CLASSES
    precision: Any = key.precision
    recipe = Recipe(augmentation="none", batch_size=batch, precision=precision)
    if key.kind == "forward":
        read = activations(network.eval(), None)

        def forward() -> None:
            with torch.inference_mode(), autocast(precision, device):
                read(as_images(pixels))

        return forward
    if key.kind == "attack":
        adversary = Adversary(network.train(), L2(0.5), Attack(steps=2, use_best=False), 0, key.side)
        one = Attack(steps=1, use_best=False)
        starts = Starts(0, 0, torch.arange(batch, device=device))

        def attack() -> None:
            with autocast(precision, device):
                adversary.perturbed(as_images(pixels), labels, one, starts)

        return attack
    optimiser = _with_heads(network, recipe) if key.kind == "heads" else None
    training = Training(network.train(), recipe, 0, ALONE, 1e-4, device, optimiser)

    def learn() -> None:
        training.learn(iter([(as_images(pixels), labels)]), images=batch, groups=1, rate=1e-4)

    return learn


def _with_heads(network: Any, recipe: Any) -> Any:
    from robust_transfer.configuration.transfer import LinearHeadsSettings
    from robust_transfer.stages.linear_heads import put_on

    settings = LinearHeadsSettings(
        purpose="final", learning_rates=(1e-3, 1e-4), weight_decays=(0.0,), training=recipe, batchnorm="drift",
        normalisation=None,
    )  # fmt: skip
    return put_on(network, CLASSES, [(rate, 0.0) for rate in settings.learning_rates], settings)


def fitted_seconds(images: int = 1000, dimension: int = 64, classes: int = CLASSES) -> float:
    """Seconds of a probe per strength × image × feature × class, on features of overlapping classes."""
    import numpy as np

    from robust_transfer.configuration.transfer import STRENGTHS
    from robust_transfer.statistics.logistic_regression import Regression

    random = np.random.default_rng(0)
    labels = np.arange(images) % classes
    features = random.normal(0, 1, (classes, dimension))[labels] / 2 + random.normal(0, 1, (images, dimension))
    begun = time.process_time()
    list(Regression(features.astype(np.float32), labels, standardise=True).path(STRENGTHS))
    return (time.process_time() - begun) / (len(STRENGTHS) * images * dimension * classes)


def start_seconds(smallest: Pass, device: str) -> dict[str, float]:
    """Seconds of the smallest job of every stage, from start to end; the minimum over a stage's jobs."""
    from robust_transfer.configuration.load import validate
    from robust_transfer.configuration.transfer import PROTOCOLS
    from robust_transfer.dag import experiment_file
    from robust_transfer.dag.grid import plan
    from robust_transfer.registry import STAGES
    from robust_transfer.store.entry import ENTRY, write_json

    part = {"architectures": [smallest.architecture], "eps": [0]}
    with tempfile.TemporaryDirectory(prefix="calibration-") as folder:
        store, results = Path(folder) / "store", Path(folder) / "results"
        tiny = TINY | {
            "input_size": smallest.side,
            "store": str(store),
            "results": str(results),
            "grid": [
                part | {"modes": ["fixed-feature"], "protocols": list(PROTOCOLS), "views": [8], "robustness": True},
                part | {"modes": ["full-network"], "source_views": ["stylized"], "gallery": True},
            ],
            "figures": {"draw": ["fixed_feature"], "widths": []},
        }
        grid = plan(validate(tiny))
        taken: dict[str, list[float]] = {}
        for entry in grid.entries.values():
            place = store / entry.id
            place.mkdir(parents=True)
            write_json(place / ENTRY, entry.described())
            on = device if STAGES[entry.stage].uses_gpu else "cpu"  # as the rules have it
            taken.setdefault(entry.stage, []).append(_timed([entry.stage, str(place), "--device", on], device))
        results.mkdir()
        write_json(results / "experiment.json", experiment_file.describe(grid))
        taken |= _results_seconds(results, device)
    return {stage: round(min(seconds), 3) for stage, seconds in taken.items()}


def _results_seconds(results: Path, device: str) -> dict[str, list[float]]:
    table = str(results / "results.parquet")
    suffixes = dict.fromkeys(("results", "timings", "training"), "parquet") | dict.fromkeys(
        ("backbones", "flags"), "csv"
    )
    written = [f"--{name}={results / name}.{suffix}" for name, suffix in suffixes.items()]
    return {
        "results": [_timed(["results", str(results / "experiment.json"), *written], device)],
        "claims": [_timed(["claims", table, "--out", str(results / "claims")], device)],
        "figures": [_timed(["figures", "fixed_feature", table, "--out", str(results / "fixed_feature")], device)],
        "report": [_timed(["report", table, "--out", str(results / "summary.txt")], device)],
        "page": [_timed(["page", str(results)], device)],
    }


def _timed(arguments: list[str], device: str) -> float:
    """Seconds of a command: processor time, or with a GPU wall-clock time."""
    clock = _children_seconds if device == "cpu" else time.perf_counter
    begun = clock()
    done = subprocess.run(
        [sys.executable, "-m", "robust_transfer", *arguments], env=_environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise RateError(f"`robust-transfer {' '.join(arguments)}` failed:\n{done.stderr.strip()}")
    return clock() - begun


def _children_seconds() -> float:
    """Processor time of all child processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _processor() -> str:
    """The processor's model name, from /proc/cpuinfo if there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else f"cpu {platform.machine()}"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(measure(json.loads(Path(sys.argv[1]).read_text()))))
