"""What a step of a training launches on emulated CUDA, and what it waits for.

    python -m emulated_cuda.steps '{"architecture": "resnet18", "side": 32, …}'

To be started by `support.emulation.start`. Prints a JSON object: of an early step launches by operator, and blocking by
operator and line; of a late one, whose kernels have been recorded, launches.
"""

import contextlib
import json
import math
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from emulated_cuda.graphs import graphs_by
from emulated_cuda.operators import Emulation
from robust_transfer.attacks import L2
from robust_transfer.configuration.running import Running
from robust_transfer.configuration.training import Attack, Recipe
from robust_transfer.datasets.arrow import open_split
from robust_transfer.loading.loader import Subset, open_loader
from robust_transfer.machine.devices import prepare
from robust_transfer.networks.build import build
from robust_transfer.training import progress
from robust_transfer.training.loop import Adversary, Training, fit
from support.prepared_datasets import encoded_squares, written


class _EnoughError(Exception):
    """Ends a training whose step has been counted."""


def counted(architecture: str, side: int, recipe: dict[str, Any], attack: dict[str, Any]) -> dict[str, Counter[str]]:
    """What the second step of an adversarial training launches and waits for, and the sixth launches; loading included.

    Images are held on the GPU, unless the recipe crops them at their stored size: then this process reads them.
    """
    settings, emulated, before = Recipe(epochs=1, learning_rate=1e-3, **recipe), Emulation(), []
    learn = Training.learn
    progress.LOG_EVERY = math.inf  # a log line waits for the GPU, and would come at any step on a busy machine

    def learn_and_count(*arguments: Any, **options: Any) -> None:
        before.append((emulated.launches.copy(), emulated.blocking.copy()))
        if len(before) == 7:
            raise _EnoughError
        learn(*arguments, **options)

    Training.learn = learn_and_count  # type: ignore[method-assign]
    images, labels = encoded_squares(7 * settings.batch_size, side)
    with tempfile.TemporaryDirectory() as folder, emulated, graphs_by(emulated):
        on = prepare("cuda", 1, settings.precision)
        network = build(architecture, 3).to(on)
        loader = open_loader(
            [Subset(open_split(written(Path(folder), images, labels), "train"), np.arange(len(labels)))],
            settings,
            input_size=side,
            resize_ratio=1.0,
            seed=0,
            device=on,
            threads=1,
            running=Running(workers=0),
        )
        adversary = Adversary(network, L2(0.5), Attack(**attack), 0, side)
        with contextlib.suppress(_EnoughError):
            fit(network, loader, settings, input_size=side, seed=0, perturb=adversary)
    _, second, third, *_, sixth, seventh = before
    return {
        "launches": third[0] - second[0],
        "blocking": third[1] - second[1],
        "recorded": seventh[0] - sixth[0],
    }


if __name__ == "__main__":
    torch.manual_seed(0)
    json.dump(counted(**json.loads(sys.argv[1])), sys.stdout)
