"""Speed of a device: of GPUs from published measurements, of this machine as `calibration` measured it."""

from __future__ import annotations

import difflib
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from robust_transfer.planning.networks import size_of
from robust_transfer.planning.work import PASSES, Pass, Work
from robust_transfer.registry import ALL_STAGES

GPUS = Path(__file__).with_name("gpus.yaml")

# Processor time where nothing was measured: one core of an AMD EPYC, from the stages' docstrings.
STORED_SECONDS = 1 / 4500
"""To prepare, downscale or draw an image of 32 pixels."""
DECODED_SECONDS, DECODED_BYTE_SECONDS = 1.8e-4, 2.8e-8
"""To decode and resize an encoded image, and for each of its bytes: 0.24 ms at 64 px from 2 kB, 2.9 ms at 224 px from
97 kB, as `loading/streaming.py` measured. How many cores decode for a GPU follows from these (`feeding.py`)."""
FITTED_SECONDS = 0.05 / (45 * 1500 * 64 * 10)
"""For a probe's strength × image × feature × class."""
COMPARED_SECONDS = 5e-11
"""For a feature of an image beside the same of another, in a search for neighbours; measured on an Intel Xeon."""
START_SECONDS = 2.4
"""To start a job that imports torch."""
LIGHT_START_SECONDS = 0.7
"""To start one that does not."""
FIGURE_SECONDS = 4.0
"""To draw a figure."""
ENGINE_SECONDS = 0.2
"""Overhead of Snakemake per job on this machine."""


def _is_heavy(stage: str) -> bool:
    """It imports torch, matplotlib or scikit-learn."""
    return ALL_STAGES[stage].uses_gpu or stage in ("figures", "knn")


class RateError(ValueError):
    """A rate is unknown or invalid; the message lists the valid ones."""


class Rates(Protocol):
    """Seconds of passes and of starts."""

    name: str
    notes: list[str]
    """Assumptions behind the rates; grows as rates are asked for."""

    def seconds_per_image(self, key: Pass) -> float:
        """Seconds that one image takes in such a pass."""

    def start(self, stage: str) -> float:
        """Fixed cost of a job of the stage, in seconds: everything that does not grow with its work."""


@dataclass
class PublishedRates:
    """A GPU by published rates of ResNet-50 training; other networks and passes are scaled by FLOPs."""

    name: str
    full: str
    training: dict[str, float]
    """Images per second, by precision."""
    source: tuple[str, ...]
    notes: list[str] = field(default_factory=list)

    def seconds_per_image(self, key: Pass) -> float:
        """As in Rates."""
        architecture, side = _reference()
        step = PASSES["train"] * size_of(architecture, side).flops
        return key.flops / (step * self._rate(key.precision))

    def start(self, stage: str) -> float:
        """As in Rates; processor time, since the GPU waits for it."""
        return START_SECONDS if _is_heavy(stage) else LIGHT_START_SECONDS

    def _rate(self, precision: str) -> float:
        if precision in self.training:
            return self.training[precision]
        if precision == "tf32" and "fp32" in self.training:
            return self.training["fp32"]  # a GPU without tf32 computes in fp32
        if precision == "fp32" and "tf32" in self.training:
            self._note(
                f"{self.name}: no rate for fp32 is known, so that of tf32 is used: hours of fp32 work are a lower "
                "bound; training.precision: tf32 or bf16 makes them exact"
            )
            return self.training["tf32"]
        self._note(f"{self.name}: no rate for {precision} is known; counted at the rate of fp32")
        return min(self.training.values())

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


@functools.cache
def _gpus() -> dict[str, Any]:
    gpus: dict[str, Any] = yaml.safe_load(GPUS.read_text())
    return gpus


def _reference() -> tuple[str, int]:
    reference = _gpus()["reference"]
    return str(reference["architecture"]), int(reference["side"])


def gpu_names() -> list[str]:
    """The GPUs for which a published rate is known."""
    return list(_gpus()["gpus"])


def published_rates(name: str) -> PublishedRates:
    """The rates of a GPU by its name, in upper or lower case. Raises RateError, which lists all names, if unknown."""
    wanted = name.lower().replace(" ", "-").replace("_", "-")
    for known, row in _gpus()["gpus"].items():
        if wanted == known.lower():
            return PublishedRates(known, row["full"], dict(row["training"]), tuple(row["source"]))
    near = difflib.get_close_matches(wanted.upper(), gpu_names(), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise RateError(
        f"--gpu {name}: no published rate of such a GPU is known here; {hint}There are {', '.join(gpu_names())}. "
        "On the GPU itself, --calibrate measures it"
    )


@dataclass
class Calibrated:
    """A device as `calibration` measured it."""

    name: str
    passes: dict[Pass, float]
    """Seconds per image."""
    starts: dict[str, float]
    """Seconds of the smallest job, by stage."""
    fitted_seconds: float
    """Of a probe, as FITTED_SECONDS."""
    device: str
    """cpu or cuda."""
    described: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def seconds_per_image(self, key: Pass) -> float:
        """As in Rates; a pass that was not measured is scaled by FLOPs from the most similar one that was."""
        if key in self.passes:
            return self.passes[key]

        def similarity(other: Pass) -> tuple[int, float]:
            same = 8 * (other.kind == key.kind) + 4 * (other.precision == key.precision)
            return same + 2 * (other.architecture == key.architecture), -abs(other.side - key.side)

        nearest = max(self.passes, key=similarity)
        note = "some networks, sizes or precisions were not measured themselves: scaled by FLOPs from what was"
        if note not in self.notes:
            self.notes.append(note)
        return self.passes[nearest] * key.flops / nearest.flops

    def start(self, stage: str) -> float:
        """As in Rates."""
        if stage in self.starts:
            return self.starts[stage]
        heavy = _is_heavy(stage)
        similar = [seconds for name, seconds in self.starts.items() if _is_heavy(name) == heavy]
        return sum(similar) / len(similar) if similar else (START_SECONDS if heavy else LIGHT_START_SECONDS)


def save_calibration(calibrated: Calibrated, path: Path) -> None:
    """Write a calibration as JSON."""
    passes = [key._asdict() | {"seconds_per_image": seconds} for key, seconds in calibrated.passes.items()]
    content = {
        "calibration": 1,
        "device": calibrated.device,
        "name": calibrated.name,
        **calibrated.described,
        "starts": calibrated.starts,
        "fitted_seconds": calibrated.fitted_seconds,
        "passes": passes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def read_calibration(path: Path) -> Calibrated:
    """Read a saved calibration. Raises RateError for a file that is not one."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        passes = {
            Pass(row["architecture"], row["side"], row["precision"], row["kind"]): float(row["seconds_per_image"])
            for row in content["passes"]
        }
        calibrated = Calibrated(
            content["name"], passes, content["starts"], content["fitted_seconds"], content["device"],
            {key: content[key] for key in ("host", "date", "torch", "side_by_side") if key in content},
        )  # fmt: skip
    except FileNotFoundError:
        raise RateError(f"--calibration {path}: no such file; --calibrate makes one") from None
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise RateError(f"--calibration {path}: not a calibration ({error!r}); --calibrate makes one") from None
    if not passes or min(passes.values()) <= 0:
        raise RateError(f"--calibration {path}: holds no seconds per image above 0; --calibrate makes one anew")
    return calibrated


def network_seconds(work: Work, rates: Rates) -> float:
    """Seconds of all passes of some work."""
    return sum(images * rates.seconds_per_image(key) for key, images in work.images.items())


def processor_seconds(work: Work, fitted_seconds: float = FITTED_SECONDS) -> float:
    """Seconds of one core for what needs no GPU: decoding, storing, fitting probes, comparing features."""
    seconds = work.stored * STORED_SECONDS + decoding_seconds(work) + work.fitted * fitted_seconds
    return seconds + work.compared * COMPARED_SECONDS


def decoding_seconds(work: Work) -> float:
    """Seconds of one core to decode the images of some work."""
    return work.decoded * DECODED_SECONDS + work.decoded_bytes * DECODED_BYTE_SECONDS
