"""How many jobs Snakemake starts beside each other on the GPUs of one machine.

Jobs find their cards themselves (`machine/slots.py`), and one that finds none waits, with a core that others could use.
So Snakemake is told how many cards there are, and which share of one each job takes.
"""

from __future__ import annotations

from robust_transfer.configuration.load import ConfigurationError
from robust_transfer.configuration.running import Running
from robust_transfer.dag.engine import Engine
from robust_transfer.machine.cards import driver_fault, usable, visible
from robust_transfer.machine.slots import UNITS
from robust_transfer.registry import STAGES

SHARE = "gpu_share"
"""Resource of jobs on one machine: parts of GPUs, UNITS to each."""


def limit_gpus(engine: Engine, running: Running) -> None:
    """Let no more jobs run on this machine's GPUs than `running.jobs_per_gpu` says; nothing where there are none.

    `--resources gpu=…` lowers that further. Raises ConfigurationError if one job asks for more GPUs than there are.
    """
    cards = usable()
    if not cards or not engine.is_local:
        return
    for name, stage in STAGES.items():
        if stage.uses_gpu:
            engine.ask(name, **{SHARE: _share(engine, name, running, len(cards))})
    engine.limit("gpu", len(cards) * max(running.jobs_per_gpu.values(), default=1))
    engine.limit(SHARE, len(cards) * UNITS)


def gpu_notices() -> list[str]:
    """One line if there are GPUs on this machine whose driver is too old."""
    fault = driver_fault()
    return [f"GPUs: not used on this machine: {fault}"] if fault and visible() else []


def _share(engine: Engine, stage: str, running: Running, cards: int) -> int:
    asked = engine.resource(stage, "gpu")
    count = asked if isinstance(asked, int) else 1
    if count > cards:
        raise ConfigurationError(
            f"--set-resources {stage}:gpu={count}: this machine has {cards} GPUs that can be used "
            "(CUDA_VISIBLE_DEVICES may hide some); ask for as many, or run it where there are more"
        )
    return count * UNITS if count != 1 else UNITS // running.jobs_per_gpu.get(stage, 1)  # type: ignore[call-overload]
