"""Pretraining: a backbone from scratch on the source, adversarially where eps is above 0.

    python -m robust_transfer pretraining store/pretraining/<entry>

Reads the training images of its input `source`; a texture-robust backbone also those of `stylized`, where it trains on
both, and starts from the weights of `start`. Writes `weights.safetensors` (the last epoch's) and `epochs.csv`.
It can be stopped at any time: SIGTERM, SIGUSR1, Ctrl-C and `--stop-before` save its state first and exit with code 75;
the same command goes on where the last saved state left off. `--processes 2` trains on two GPUs.
One core of an AMD EPYC (Zen 4) trains a resnet8_w16 at 32 px in bf16 on 470 images per second under PGD with two steps,
on 1,230 without an attack; in fp32 on 284 and 839.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing

import numpy as np

from robust_transfer.attacks import threat_model
from robust_transfer.configuration.running import running
from robust_transfer.configuration.training import PretrainingSettings
from robust_transfer.datasets.arrow import open_split
from robust_transfer.loading.loader import Subset, open_loader
from robust_transfer.machine.devices import prepare
from robust_transfer.machine.distributed import process_group
from robust_transfer.machine.launch import is_main
from robust_transfer.networks.backbones import WEIGHTS, load_backbone, save_weights
from robust_transfer.networks.build import Network, build
from robust_transfer.resuming.states import states_of
from robust_transfer.store.entry import Entry, StoreError
from robust_transfer.tables.sanity import loader_flags, training_flags
from robust_transfer.training.loop import Adversary, checked_images, fit
from robust_transfer.training.progress import cost, write_epochs
from robust_transfer.weights.outputs import outputs_for

log = logging.getLogger("robust_transfer")


def run(entry: Entry, *, threads: int, device: str) -> None:
    """Train the backbone that `entry` describes. Raises Interrupted if it was asked to leave before it was done."""
    with ExitStack() as stack:
        # The lock comes first: a process that does not get it says who has it, and its team ends with it.
        draft = stack.enter_context(entry.writing()) if is_main() else None
        team = stack.enter_context(process_group(device))
        settings = PretrainingSettings.model_validate(entry.settings)
        recipe = settings.training
        on = prepare(device, max(1, threads // team.size), recipe.precision)
        splits = [open_split(entry.input(role), "train") for role in ("source", "stylized") if role in entry.inputs]
        split, images = splits[0], sum(map(len, splits))
        classes, size = len(split.classes), settings.input_size
        network = build(settings.architecture, classes, seed=settings.seed, input_size=size)
        if "start" in entry.inputs:
            begin_with(network, entry.input("start"), split.classes)
        network.to(on)
        loader = stack.enter_context(
            closing(
                open_loader(
                    [Subset(part, np.arange(len(part))) for part in splits],
                    recipe,
                    input_size=settings.input_size,
                    resize_ratio=settings.preprocessing.resize_ratio,
                    seed=settings.seed,
                    device=on,
                    threads=max(1, threads // team.size),
                    running=running(),
                )
            )
        )
        log.info(
            "%s, %s parameters; %d images at %d px, %d classes",
            *(settings.architecture, f"{network.parameters_n:,}", images, settings.input_size, network.classes),
        )
        adversary = None
        if settings.norm and settings.attack:
            threat = threat_model(settings.norm, settings.eps)
            adversary = Adversary(
                network, threat, settings.attack, settings.seed, settings.input_size, fp32_head=recipe.fp32_head
            )
        states = stack.enter_context(states_of(entry, device=device, threads=threads, team=team))
        epochs = fit(
            network,
            loader,
            recipe,
            input_size=settings.input_size,
            seed=settings.seed,
            perturb=adversary,
            check=settings.check,
            states=states,
            team=team,
        )
        if draft is None:
            return
        facts = {
            "architecture": settings.architecture,
            "classes": list(split.classes),
            "input_size": settings.input_size,
            "norm": settings.norm,
            "eps": settings.eps,
            "precision": recipe.precision,
        }
        save_weights(draft.file(WEIGHTS), network, facts)
        write_epochs(draft.file("epochs.csv"), epochs)
        flags = training_flags(
            epochs,
            classes=network.classes,
            norm=settings.norm,
            eps=settings.eps,
            input_size=settings.input_size,
            sample=checked_images(settings.check, images),
        )
        draft.timing["checked_images"] = checked_images(settings.check, images)
        draft.facts = facts | {"parameters": network.parameters_n, "source": split.entry.name}
        if settings.trained_on != "native":
            draft.facts["trained_on"] = [part.entry.name for part in splits]
        if "start" in entry.inputs:
            draft.facts["start"] = entry.input("start").name
        draft.facts["flags"] = [flag.as_json() for flag in flags]
        if states.resumed:
            draft.facts["resumed"] = states.resumed
        spent = cost(epochs, loader.rate())
        slow = loader_flags(spent["loader_images_per_second"], spent["network_images_per_second"])
        draft.timing.update(spent, device=device, threads=threads, processes=team.size)
        draft.timing["flags"] = [flag.as_json() for flag in slow]
        for flag in flags + slow:
            log.warning("%s: %s", flag.flag, flag.message)


def begin_with(network: Network, start: Entry, classes: tuple[str, ...]) -> None:
    """Give a network the weights of a finished backbone, head and normalisation included.

    Raises StoreError for a backbone of other classes.
    """
    facts = start.facts()
    known: list[str] = facts["classes"]
    if outputs_for(known, classes, imported="imported" in facts) != list(range(len(known))):
        raise StoreError(
            f"{start.path}: its {len(known)} outputs are not the {len(classes)} classes that are trained on, one for "
            "one and in their order; start from a backbone of the same source, or set "
            "pretraining.texture_robust.start: scratch"
        )
    state = load_backbone(start).state_dict()
    for name, tensor in network.state_dict().items():  # load_state_dict of MNASNets asks for a version
        tensor.copy_(state[name])
