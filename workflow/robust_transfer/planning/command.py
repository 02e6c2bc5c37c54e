"""The command `plan`: what an experiment will take, before it runs.

    python -m robust_transfer plan --configfile experiments/mine.yaml --gpu A100 --price 2.1
    python -m robust_transfer plan --calibrate

Nothing of the experiment runs; `--calibrate` measures this machine for a minute or two.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from robust_transfer.configuration.load import load
from robust_transfer.dag.availability import planned
from robust_transfer.dag.grid import Grid
from robust_transfer.dag.wiring import Wiring
from robust_transfer.planning.plan import default_calibration, make_plan, wanted
from robust_transfer.planning.rates import (
    Calibrated,
    RateError,
    Rates,
    published_rates,
    read_calibration,
    save_calibration,
)
from robust_transfer.planning.report import as_json, table


def run_plan(
    files: Sequence[Path],
    *,
    gpus: Sequence[str] = (),
    prices: Sequence[float] = (),
    currency: str = "$",
    calibrate: bool = False,
    calibration: Path | None = None,
    device: str = "cpu",
    cores: int | None = None,
    in_json: bool = False,
) -> str:
    """The plan of the experiment in `files`, later ones over earlier ones (none: config.yaml), as text to print.

    `gpus` are names in `gpus.yaml`; `prices` the price of one hour of each, in `currency`. `calibrate` measures
    `device` and saves the calibration to `calibration`, by default `results/calibration-<host>.json`; without it,
    `calibration` is read. `cores` is how many jobs run side by side here; default: the processor's cores. Raises
    RateError and ConfigurationError before anything is measured.
    """
    _check(gpus, prices, cores)
    cores = cores or os.cpu_count() or 1
    rates: list[Rates] = [published_rates(name) for name in gpus]
    grid = planned(load(files))
    Wiring(grid).check_networks()
    if calibrate:
        rates.append(_calibrated(grid, calibration or default_calibration(grid), device, cores))
    elif calibration:
        rates.append(read_calibration(calibration))
    made = make_plan(grid, rates, prices=prices, currency=currency, cores=cores)
    return json.dumps(as_json(made), indent=1, ensure_ascii=False) if in_json else table(made)


def _check(gpus: Sequence[str], prices: Sequence[float], cores: int | None) -> None:
    for price in prices:
        if not (math.isfinite(price) and price >= 0):
            raise RateError(f"--price {price:g}: the price of an hour is a number from 0 up")
    if prices and len(prices) != len(gpus):
        raise RateError(
            f"--price names {len(prices)} prices and --gpu {len(gpus)} GPUs: write a price for each GPU, in this order"
        )
    if len(set(gpus)) != len(gpus):
        raise RateError(f"--gpu {' '.join(gpus)}: names a GPU twice")
    if cores is not None and cores < 1:
        raise RateError(f"--cores {cores}: at least 1")


def _calibrated(grid: Grid, path: Path, device: str, cores: int) -> Calibrated:
    from robust_transfer.planning.calibration import calibrate

    images, batches = wanted(grid)
    calibrated = calibrate(images, batches, processes=cores, device=device)
    save_calibration(calibrated, path)
    return calibrated
