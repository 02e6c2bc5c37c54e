"""The training step of the library that the paper used (MadryLab robustness 1.2.1), run as its `train_model` runs it.

Its own `_model_loop` does the work: attack by `AttackerModel`, logits, accuracies, backward, SGD. It gets a network of
ours and images in memory. Two things fail without a GPU or without apex, and are worked around here: on a CPU, `cuda()`
of tensors and modules returns the object itself; and mixed precision, for which the library uses NVIDIA's apex (CUDA
only), is not offered. `by_hand` wraps the loop in torch's own autocast, which the library does not do.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Protocol

os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported; its bar would be drawn at every step

import torch
from robust_transfer.configuration.training import Norm
from robust_transfer.networks.build import IMAGENET_MEAN, IMAGENET_STD, Network
from torch import Tensor, nn


class Adapter(nn.Module):
    """A network of ours with the library's signature and without its normalisation, which the library adds."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.body, self.head = network.body, network.head

    def forward(self, x: Tensor, with_latent: bool = False, fake_relu: bool = False, no_relu: bool = False) -> Tensor:
        """Logits of normalised images; the three switches are for visualising features and stay off."""
        assert not any([with_latent, fake_relu, no_relu])
        logits: Tensor = self.head(self.body(x))
        return logits


class Batches(Protocol):
    """Batches in the form of a data loader, as the library expects."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


class Trainer:
    """Adversarial training of a network, which is changed in place."""

    def __init__(
        self,
        network: Network,
        *,
        eps: float,
        steps: int,
        learning_rate: float,
        weight_decay: float = 1e-4,
        device: str,
        by_hand: bool,
        norm: Norm = "l2",
        relative_step_size: float | None = None,
        random_start: bool = False,
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated syntax, and no apex
            from cox.utils import Parameters
            from robustness.attacker import AttackerModel
            from robustness.train import _model_loop, make_optimizer_and_schedule

        self._loop, self._device, self._by_hand = _model_loop, device, by_hand
        self._args = Parameters(
            {
                "adv_train": True, "constraint": {"l2": "2", "linf": "inf"}[norm], "eps": eps,
                "attack_lr": eps * (relative_step_size or 2 / steps), "attack_steps": steps,
                "random_start": random_start,
                "random_restarts": 0, "use_best": False, "custom_eps_multiplier": None,
                "lr": learning_rate, "momentum": 0.9, "weight_decay": weight_decay, "mixed_precision": False,
                "custom_lr_multiplier": None, "step_lr": None, "epochs": 1,
            }
        )  # fmt: skip
        dataset = SimpleNamespace(mean=torch.tensor(IMAGENET_MEAN), std=torch.tensor(IMAGENET_STD))
        model = AttackerModel(Adapter(network), dataset)
        self._optimiser, _ = make_optimizer_and_schedule(self._args, model, None, None)
        with self._on_device():
            self._model = nn.DataParallel(model).cuda()

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return float(self._optimiser.param_groups[0]["lr"])

    @rate.setter
    def rate(self, rate: float) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = rate

    def train(self, batches: Batches) -> None:
        """A step on each batch of images (float [N, 3, H, W] in [0, 1]) and labels."""
        autocast = torch.autocast(self._device, dtype=torch.bfloat16, enabled=self._by_hand)
        with self._on_device(), autocast:
            self._loop(self._args, "train", batches, self._model, self._optimiser, 0, True, None)

    @contextlib.contextmanager
    def _on_device(self) -> Iterator[None]:
        if self._device == "cuda":
            yield
            return
        before = torch.Tensor.cuda, nn.Module.cuda
        torch.Tensor.cuda = nn.Module.cuda = _itself  # type: ignore[assignment, method-assign]  # replaced on purpose
        try:
            yield
        finally:
            torch.Tensor.cuda, nn.Module.cuda = before  # type: ignore[method-assign]


def _itself(of: object, *_: object, **__: object) -> object:
    return of
