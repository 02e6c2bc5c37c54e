"""The training loop of pretraining, fine-tuning and linear heads; it can stop after any step and resume there.

Order, augmentation and perturbation are functions of seed, epoch and image (`randomness`), so that a state needs no
random generator: the step number determines what comes next. A batch is processed in groups, over which BatchNorm takes
its statistics; one process does them one after the other, several processes share them, and gradients are summed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robust_transfer import randomness
from robust_transfer.attacks import L2, GivenStarts, Starts, Threat, pgd
from robust_transfer.configuration.training import Attack, Check, Recipe
from robust_transfer.loading.loader import Loader, moved
from robust_transfer.machine.devices import autocast, peak_memory_mb
from robust_transfer.machine.distributed import ALONE, ProcessGroup
from robust_transfer.machine.graphs import Recorder
from robust_transfer.networks.build import Network, OnlyHead
from robust_transfer.networks.folding import Folded
from robust_transfer.resuming.states import State, States
from robust_transfer.training.adamw import AdamW
from robust_transfer.training.averaging import Average
from robust_transfer.training.batchnorm import RunningStatistics
from robust_transfer.training.divergence import DivergedError, FiniteSteps
from robust_transfer.training.inference import classify
from robust_transfer.training.optimiser import Optimiser
from robust_transfer.training.progress import Epoch, Progress
from robust_transfer.training.schedules import (
    TrainingError,
    batch_sizes,
    eps_share_at,
    learning_rate_at,
    side_at,
    steps,
)
from robust_transfer.training.sgd import SGD

log = logging.getLogger("robust_transfer")

Perturb = Callable[[Tensor, Tensor, int, Tensor], Tensor]
"""Perturbs a batch before the network learns from it: (images float [B, 3, S, S] in [0, 1], labels int64 [B], epoch,
numbers of the images int64 [B]) to images of the same shape and range."""

CHECK_BATCH = 64
"""Images at a time in a check: an attack takes several times the memory of a forward pass."""
FINITE = "finite_steps"
"""Name in a state of how many steps the loss of each head has been finite."""


class Adversary:
    """Perturbs each batch by PGD against the network's current weights; a `Perturb`.

    For images smaller than `input_size` (progressive resizing) an L2 eps is scaled by side / input_size, which keeps
    the budget per pixel.
    """

    done: float
    """Share of the training's steps that are behind, by which eps grows where it does; `fit` sets it."""

    def __init__(
        self,
        network: Network,
        threat: Threat,
        attack: Attack,
        seed: int,
        input_size: int,
        ramp: tuple[float, float] = (0.0, 0.0),
        *,
        fp32_head: bool = False,
    ) -> None:
        """Create an adversary.

        Args:
            network: Network that is trained, and attacked; of parallel heads, which see the same images, it has one.
            threat: Norm and eps at `input_size`.
            attack: Steps, step size and random starts of PGD.
            seed: Seed of the random starts.
            input_size: Side of the network's input, pixels.
            ramp: Shares of the steps at which eps begins to grow from 0 and at which it is whole; see `eps_share_at`.
            fp32_head: The head computes in float32, whatever autocast says.
        """
        self._fp32_head = fp32_head
        self.network, self.threat, self.attack, self.seed = network, threat, attack, seed
        self._input_size, self._ramp, self.done = input_size, ramp, 1.0
        self._folded: Folded | None = None
        self._recorder = Recorder()
        self._is_unchanged = self._is_current = False

    @contextmanager
    def unchanged_network(self) -> Iterator[None]:
        """Within the block the network does not change, so that its weights are folded once for all calls."""
        self._is_unchanged = True
        try:
            yield
        finally:
            self._is_unchanged = self._is_current = False

    def __call__(self, images: Tensor, labels: Tensor, epoch: int, indices: Tensor) -> Tensor:
        """Perturb a batch; see `Perturb`."""
        share = eps_share_at(self.done, *self._ramp)
        return self.perturbed(images, labels, self.attack, Starts(self.seed, epoch, indices), share)

    def perturbed(self, images: Tensor, labels: Tensor, attack: Attack, starts: Starts, share: float = 1.0) -> Tensor:
        """Images (float [B, 3, S, S]) perturbed by any attack within the same threat model, or a share of its eps."""
        threat = self._at_side(images.shape[-1])
        if share < 1:
            threat = replace(threat, eps=threat.eps * share)
        if self._folded is None:  # only now, since training moves the network and sets its memory format
            self._folded = Folded(self.network, fp32_head=self._fp32_head)
        pays = self._recorder.pays(images) and share == 1 and threat.eps > 0 and len(images) > 0
        if not self._is_current:
            if pays:
                self._recorder.call("refresh", self._folded.refresh)
            else:
                self._folded.refresh()
        self._is_current = self._is_unchanged
        target = OnlyHead(self._folded) if self.network.head.weight.ndim > 2 else self._folded
        if not pays:
            return pgd(target, images, labels, threat, attack, starts)

        def attacked(images: Tensor, labels: Tensor, *keys: Tensor) -> Tensor:
            return pgd(target, images, labels, threat, attack, GivenStarts(keys))

        keys = [starts.keys(restart) for restart in range(attack.restarts)] if attack.random_start else []
        perturbed: Tensor = self._recorder.call((threat, attack), attacked, images, labels, *keys)
        return perturbed.clone()

    def _at_side(self, side: int) -> Threat:
        threat = self.threat
        if side == self._input_size or not isinstance(threat, L2):
            return threat
        return replace(threat, eps=threat.eps * side / self._input_size)


def fit(
    network: Network,
    loader: Loader,
    recipe: Recipe,
    *,
    input_size: int,
    seed: int,
    learning_rate: float | None = None,
    optimiser: Optimiser | None = None,
    perturb: Perturb | None = None,
    check: Check | None = None,
    states: States | None = None,
    team: ProcessGroup = ALONE,
    finite: FiniteSteps | None = None,
) -> list[Epoch]:
    """Train those parameters of `network` that require gradients, in place; returns one row per epoch.

    Parallel heads are trained on the sum of their losses, so that none influences another; loss and accuracy are then
    those of the best head. Raises DivergedError if the loss is not finite, TrainingError if there are more processes
    than groups in a batch; Interrupted, after saving a state, if the job is to exit.

    Args:
        network: On the loader's device.
        loader: Training images and labels.
        recipe: Hyperparameters.
        input_size: Side of the network's input, pixels.
        seed: Seed of the order, of dropout and of the check.
        learning_rate: Peak learning rate in place of the recipe's.
        optimiser: Optimiser in place of the recipe's.
        perturb: Perturbation of each batch, such as an Adversary.
        check: When and on how many training images accuracy is measured in eval mode; robust accuracy too if `perturb`
            is an Adversary.
        states: Where to resume from and to save states.
        team: Processes of this training.
        finite: Counts the steps of every head whose loss was finite, for the caller to read.
    """
    device = loader.labels.device
    network.train().to(memory_format=torch.channels_last)
    training = Training(network, recipe, seed, team, learning_rate or recipe.learning_rate, device, optimiser, finite)
    _check_groups(recipe, len(loader.labels), team)
    checked = _Checked(network, loader, check, perturb, seed, input_size, recipe, team) if check else None
    sizes = batch_sizes(len(loader.labels), recipe.batch_size, recipe.batchnorm_group)
    progress = Progress(recipe.epochs, sum(sizes), logs=team.is_main)
    state = states.load() if states else None
    first, skipped = training.restore(state, progress) if state else (0, 0)
    for epoch in range(first, recipe.epochs):
        plan = steps(randomness.order(seed, epoch, len(loader.labels)), recipe)
        side = side_at(recipe, epoch, input_size)
        mine = [groups[team.rank :: team.size] for groups in plan[skipped:]]
        batches, placed = loader.batches(epoch, _flat(mine), side), iter(moved(_flat(mine), device))
        progress.start_epoch(epoch, loader.waited)
        for number, groups in enumerate(mine, start=skipped):
            parts = _parts(islice(placed, len(groups)), batches, loader.labels, epoch, perturb, recipe, device)
            rate = learning_rate_at(recipe, training.peak, training.step, len(plan))
            if isinstance(perturb, Adversary):
                perturb.done = training.step / (recipe.epochs * len(plan))
            training.learn(parts, images=sizes[number], groups=len(plan[number]), rate=rate)
            if progress.due(sizes[number]):
                progress.log(training.finite_loss(rate, progress.rows), training.correct())
            if states and (wanted := states.wanted()):
                loss = training.finite_loss(rate, progress.rows)
                kept = {"epoch": epoch, "skipped": number + 1, "step": training.step, **progress.as_json(loader.waited)}
                saved = states.save(training.step, training.tensors() | {FINITE: training.finite.counts}, kept)
                if wanted == "stop":
                    progress.log(loss, training.correct())
                    raise states.leave(training.step, saved)
        skipped = 0
        rate = learning_rate_at(recipe, training.peak, training.step - 1, len(plan))
        loss = training.finite_loss(rate, progress.rows)
        if epoch == recipe.epochs - 1 and training.average:
            training.average.install()
            if isinstance(perturb, Adversary):
                perturb.done = 1.0
            _estimate_statistics(network, loader, recipe, seed, input_size, perturb, team)
        due = checked and ((epoch + 1) % checked.every == 0 or epoch == recipe.epochs - 1)
        clean, robust = checked() if checked and due else (None, None)
        progress.end_epoch(
            loss, training.correct(), side=side, rate=rate, waited=loader.waited,
            memory=peak_memory_mb(device), clean=clean, robust=robust, loader_rate=loader.rate(),
        )  # fmt: skip
        training.start_epoch()
    return progress.rows


class Training:
    """All that changes with every step, and the step itself."""

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        seed: int,
        team: ProcessGroup,
        peak: float,
        device: torch.device,
        optimiser: Optimiser | None = None,
        finite: FiniteSteps | None = None,
    ) -> None:
        self.network, self.recipe, self.seed, self.team, self.peak, self.device = (
            network, recipe, seed, team, peak, device,
        )  # fmt: skip
        self.optimiser = optimiser or _optimiser(network, recipe)
        self.average = Average(network, recipe.average_decay) if recipe.average_decay else None
        self.statistics = RunningStatistics(network)
        self.random = has_random_layers(network)
        self.heads = network.head.weight.shape[:-2]
        self._recorder = Recorder()
        self.finite = finite or FiniteSteps(self.heads, device)
        self.step = 0
        self.start_epoch()

    def start_epoch(self) -> None:
        """Reset the sums over an epoch, one per head where there are several."""
        self.loss = torch.zeros(self.heads, device=self.device, dtype=torch.float64)
        self.right = torch.zeros(self.heads, device=self.device, dtype=torch.float64)

    def learn(self, parts: Iterator[tuple[Tensor, Tensor]], *, images: int, groups: int, rate: float) -> None:
        """One optimiser step on a batch.

        Args:
            parts: Images and labels of this process's groups.
            images: Number of images in the batch, over all processes.
            groups: Number of groups in the batch, over all processes.
            rate: Learning rate.
        """
        self.optimiser.zero_grad()
        if groups == 1 and self.team.size == 1:
            loss, right = self._of_one_group(parts, images)
        else:
            with self.statistics.of_step() as sums:
                loss, right = self._backward(parts, images, after=self.statistics.of_group)
                self.team.add([*self.optimiser.gradients(), *sums, loss, right])
            self.statistics.move(groups)
        self.loss += loss
        self.right += right
        self.finite.update(self.loss)
        self.optimiser.step(rate)
        if self.average:
            self.average.update(self.step)
        self.step += 1

    def _of_one_group(self, parts: Iterator[tuple[Tensor, Tensor]], images: int) -> tuple[Tensor, Tensor]:
        """As `_backward`, of a batch that this process has whole, its kernels recorded where that pays."""

        def computed(part: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
            loss, right = self._backward(iter([(part, targets)]), images)
            return loss, right, self.optimiser.gradients()

        [(part, targets)] = parts
        if self.random or not self._recorder.pays(part):
            return computed(part, targets)[:2]
        loss, right, gradients = self._recorder.call(images, computed, part, targets)
        self.optimiser.use_gradients(gradients)
        return loss, right

    def _backward(
        self, parts: Iterator[tuple[Tensor, Tensor]], images: int, after: Callable[[], None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the mean loss over the batch, as far as these parts contribute; sums of losses and of hits."""
        recipe = self.recipe
        loss_sum, right = torch.zeros_like(self.loss), torch.zeros_like(self.right)
        for number, (part, targets) in enumerate(parts):
            if self.random:  # dropout draws from torch's generator: make it a function of the step and the group
                place = number * self.team.size + self.team.rank
                torch.manual_seed(randomness.key(self.seed, randomness.LAYERS, self.step, place))
            with _enough_for_batchnorm(part), autocast(recipe.precision, self.device):
                logits = _at_least_float32((self.network.logits if recipe.fp32_head else self.network)(part))
            logits = logits.movedim(1, -1)  # of parallel heads [B, H, K], which is how they lie in memory
            targets = targets.view(-1, *[1] * len(self.heads)).expand(-1, *self.heads)
            losses = F.cross_entropy(
                logits.flatten(0, -2), targets.flatten(), label_smoothing=recipe.label_smoothing, reduction="none"
            )
            losses = losses.view(targets.shape).sum(0)
            torch.autograd.backward(losses.sum() / images)
            loss_sum += losses.detach()
            right += (logits.detach().argmax(-1) == targets).sum(0)
            if after:
                after()
        return loss_sum, right

    def finite_loss(self, rate: float, finished: list[Epoch]) -> float:
        """Sum of the epoch's losses so far, of the best head; raises DivergedError, with the finished epochs, if it is
        not finite.

        It synchronises with the GPU, so it is called only to log or to save.
        """
        loss = float(self.loss.nan_to_num(math.inf, math.inf, math.inf).min())
        if not math.isfinite(loss):
            since = max(step or 0 for step in self.finite.diverged_at())
            raise DivergedError(
                f"loss-not-finite: the loss is {loss} at step {self.step}, since step {since}, learning rate "
                f"{rate:.3g}: training diverged; lower training.learning_rate, lengthen warmup_fraction, or train in "
                "precision: fp32",
                finished,
            )
        return loss

    def correct(self) -> float:
        """Number of the epoch's images so far that were classified correctly, by the best head."""
        return float(self.right.max())

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that change with a step, by name."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= self.optimiser.tensors()
        tensors |= {f"average.{i}": tensor for i, tensor in enumerate(self.average.values if self.average else [])}
        return tensors | {"loss": self.loss, "right": self.right}

    def restore(self, state: State, progress: Progress) -> tuple[int, int]:
        """Continue from a state; returns its epoch and the number of that epoch's steps that are done."""
        kept = state.progress
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(state.tensors[name])
        self.step = int(kept["step"])
        self.finite.restore(self.step, state.tensors.get(FINITE))  # a state of other code may not have them
        progress.restore(kept)
        return int(kept["epoch"]), int(kept["skipped"])


@dataclass
class _Checked:
    """Accuracy on some unaugmented training images, in eval mode; see `Check`."""

    network: Network
    loader: Loader
    check: Check
    perturb: Perturb | None
    seed: int
    input_size: int
    recipe: Recipe
    team: ProcessGroup

    @property
    def every(self) -> int:
        """Epochs between checks."""
        return self.check.every

    def __call__(self) -> tuple[float, float | None]:
        """Clean and robust accuracy in percent; the latter is None without an adversary."""
        n = len(self.loader.labels)
        chosen = randomness.order(self.seed, -1, n)[: checked_images(self.check, n)]
        attack = Attack(
            steps=self.check.steps, relative_step_size=2.5 / self.check.steps, random_start=True, use_best=False
        )
        counts = torch.zeros(2, dtype=torch.float64, device=self.loader.labels.device)
        for indices in torch.split(chosen, CHECK_BATCH)[self.team.rank :: self.team.size]:
            images = self.loader.unaugmented(indices, self.input_size)
            indices = indices.to(images.device)
            labels = self.loader.labels[indices]
            self.network.eval()
            counts[0] += (classify(self.network, images, self.recipe.precision) == labels).sum()
            if isinstance(self.perturb, Adversary):
                with autocast(self.recipe.precision, images.device):
                    images = self.perturb.perturbed(images, labels, attack, Starts(self.seed, -1, indices))
                counts[1] += (classify(self.network, images, self.recipe.precision) == labels).sum()
            self.network.train()
        self.team.add([counts])
        clean, robust = (100 * counts / len(chosen)).tolist()
        return clean, robust if isinstance(self.perturb, Adversary) else None


def checked_images(check: Check, n: int) -> int:
    """Number of images, of n for training, that a check measures on: at most a sixteenth, so that it stays cheap."""
    return max(1, min(check.images, n // 16))


def has_random_layers(network: nn.Module) -> bool:
    """Whether the network draws random numbers in train mode, as dropout and stochastic depth do."""
    drawing = (nn.modules.dropout._DropoutNd,)
    return any(
        (getattr(module, "p", 0) or getattr(module, "drop_prob", 0) or 0) > 0
        for module in network.modules()
        if isinstance(module, drawing) or type(module).__name__ in ("StochasticDepth", "DropPath")  # timm's is the last
    )


def _optimiser(network: Network, recipe: Recipe) -> Optimiser:
    """The recipe's optimiser, of the parameters that require gradients."""
    parameters, decay = network.parameters(), recipe.weight_decay
    if recipe.optimiser == "adamw":
        return AdamW(parameters, betas=recipe.betas, weight_decay=decay)
    return SGD(parameters, momentum=recipe.momentum, weight_decay=decay, nesterov=recipe.nesterov)


def _parts(
    groups: Iterable[Tensor],
    batches: Iterator[Tensor],
    labels: Tensor,
    epoch: int,
    perturb: Perturb | None,
    recipe: Recipe,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield perturbed images and labels of each group, one at a time, which limits the memory of activations.

    `groups` are the numbers of their images, on the device. The network must not change until all are through.
    """
    with perturb.unchanged_network() if isinstance(perturb, Adversary) else nullcontext():
        for indices in groups:
            images, targets = next(batches), labels[indices]
            if perturb is not None:
                with autocast(recipe.precision, device):
                    images = perturb(images, targets, epoch, indices)
            yield images, targets


def _estimate_statistics(
    network: Network,
    loader: Loader,
    recipe: Recipe,
    seed: int,
    input_size: int,
    perturb: Perturb | None,
    team: ProcessGroup,
) -> None:
    """Compute BatchNorm's running statistics of averaged weights: the mean over groups of perturbed training images.

    The images are the first of the epoch that would come next. The attack uses the statistics from before averaging.
    """
    statistics, device, epoch = RunningStatistics(network), loader.labels.device, recipe.epochs
    plan = steps(randomness.order(seed, epoch, len(loader.labels)), recipe)
    groups = _flat(plan)
    size = recipe.batchnorm_group or recipe.batch_size
    groups = [group for group in groups if len(group) == size][: math.ceil(recipe.average_images / size)] or groups
    mine = groups[team.rank :: team.size]
    batches = loader.batches(epoch, mine, input_size)
    parts = _parts(moved(mine, device), batches, loader.labels, epoch, perturb, recipe, device)
    random = has_random_layers(network)
    with statistics.of_step() as sums:
        for number, (images, _) in enumerate(parts):
            if random:
                torch.manual_seed(randomness.key(seed, randomness.LAYERS, -1, number * team.size + team.rank))
            with torch.no_grad(), autocast(recipe.precision, device):
                network(images)
            statistics.of_group()
        team.add(sums)
    statistics.replace(len(groups))


def _check_groups(recipe: Recipe, n: int, team: ProcessGroup) -> None:
    size = min(n, recipe.batch_size)
    groups = math.ceil(size / (recipe.batchnorm_group or size))
    if team.size > groups:
        raise TrainingError(
            f"{team.size} processes for batches of {groups} BatchNorm group{'s' * (groups > 1)}: set "
            f"training.batchnorm_group to {max(2, size // team.size)} or less, or ask for {groups} GPU at most"
        )


@contextmanager
def _enough_for_batchnorm(images: Tensor) -> Iterator[None]:
    """Turn the refusal of torch's BatchNorm, of a single image and a map of one pixel, into a TrainingError."""
    try:
        yield
    except ValueError as error:
        if len(images) > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise TrainingError(
            f"batches of one image: at {images.shape[-1]} px some layers have maps of a single pixel, of which "
            "BatchNorm needs two; set training.batch_size to 2 or more"
        ) from error


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _flat(plan: Sequence[Sequence[Any]]) -> list[Any]:
    return [group for groups in plan for group in groups]
