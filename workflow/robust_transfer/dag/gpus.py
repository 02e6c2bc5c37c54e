"""How many jobs Snakemake starts beside each other on the GPUs of one machine.

Jobs find their cards themselves (`machine/slots.py`), and one that finds none waits, with a core that others could use.
So Snakemake is told how many cards there are, and which share of one each job takes.
"""

from __future__ import annotations

from robust_transfer.configuration.running import Running
from robust_transfer.dag.engine import Engine
from robust_transfer.machine.cards import driver_fault, usable, visible
from robust_transfer.machine.slots import UNITS
from robust_transfer.registry import STAGES

SHARE = "gpu_share"
"""Resource of jobs on one machine: parts of GPUs, UNITS to each."""


def limit_gpus(engine: Engine, running: Running) -> None:
    """Let no more jobs run on this machine's GPUs than `running.jobs_per_gpu` says; nothing where there are none.

    `--resources gpu=…` lowers that further. A rule of which one job asks for more GPUs than there are is refused.
    """
    cards = usable()
    if not cards or not engine.is_local:
        return
    for name in (name for name, stage in STAGES.items() if stage.uses_gpu):
        asked = engine.resource(name, "gpu")
        count = asked if isinstance(asked, int) else 1
        if count > len(cards):
            engine.refuse(name, SHARE, _too_many(name, count, len(cards)))
        else:
            share = count * UNITS if count != 1 else UNITS // running.jobs_per_gpu.get(name, 1)  # type: ignore[call-overload]
            engine.ask(name, **{SHARE: share})
    engine.limit("gpu", len(cards) * max(running.jobs_per_gpu.values(), default=1))
    engine.limit(SHARE, len(cards) * UNITS)


def gpu_notices() -> list[str]:
    """One line if there are GPUs on this machine whose driver is too old."""
    fault = driver_fault()
    return [f"GPUs: not used on this machine: {fault}"] if fault and visible() else []


def _too_many(stage: str, count: int, cards: int) -> str:
    has = "one GPU" if cards == 1 else f"{cards} GPUs"
    return (
        f"--set-resources {stage}:gpu={count}: this machine has {has} that can be used (CUDA_VISIBLE_DEVICES may hide "
        f"some); write {stage}:gpu={cards} or less, or run it where there are more"
    )
