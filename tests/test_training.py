"""The training loop: the same bits from the same seed, and every piece of it against its definition."""

import logging
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from robust_transfer import randomness, training
from robust_transfer.attacks import L2, Linf, pgd
from robust_transfer.augmentation import Augmenter
from robust_transfer.configuration.training import Attack, Recipe
from robust_transfer.networks.build import build
from robust_transfer.sgd import SGD
from robust_transfer.training import Adversary, TrainingError, batch_sizes, fit, groups, learning_rate_at
from torch import nn

SIDE, CLASSES = 16, 3


def squares(n=36, side=SIDE, seed=0):
    """Images that differ by class in colour and by image in noise: uint8 [n, side, side, 3], int64 [n]."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    pixels = random.integers(0, 120, (n, side, side, 3))
    pixels[np.arange(n), :, :, labels] += 100
    return torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels)


def recipe(**settings):
    return Recipe(**{"epochs": 2, "batch_size": 10, "learning_rate": 0.05, "augmentation": "crop-flip", **settings})


def trained(settings=None, *, seed=0, threat=None, images=None, **kwargs):
    """A network after `fit`, and its epochs."""
    network = build("resnet8_w4", CLASSES, seed=seed)
    perturb = Adversary(network, threat, Attack(steps=2, random_start=True), seed) if threat else None
    pixels, labels = images or squares()
    epochs = fit(network, pixels, labels, settings or recipe(), input_size=SIDE, seed=seed, perturb=perturb, **kwargs)
    return network, epochs


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


class TestFit:
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    @pytest.mark.parametrize("threat", [None, L2(0.3)], ids=str)
    def test_the_same_seed_gives_the_same_bits(self, threat, precision):
        settings = recipe(precision=precision)
        one, epochs = trained(settings, threat=threat)
        torch.manual_seed(99)  # the global random state plays no part
        two, again = trained(settings, threat=threat)
        assert same(one, two)
        assert [epoch.loss for epoch in epochs] == [epoch.loss for epoch in again]
        assert not same(one, trained(settings, threat=threat, seed=1)[0])

    @pytest.mark.parametrize("threat", [L2(0.0), Linf(0.0)], ids=str)
    def test_eps_0_is_plain_training_bit_for_bit(self, threat):
        assert same(trained()[0], trained(threat=threat)[0])

    def test_a_positive_eps_is_not(self):
        assert not same(trained()[0], trained(threat=L2(0.01))[0])

    def test_learns_what_can_be_learnt(self):
        settings = recipe(epochs=6, augmentation="flip", schedule="one-cycle", learning_rate=0.1)
        network, epochs = trained(settings)
        assert epochs[-1].train_accuracy > 90
        assert epochs[-1].loss < 0.5 * epochs[0].loss
        pixels, labels = squares(seed=1)
        with torch.no_grad():
            found = network.eval()(pixels.permute(0, 3, 1, 2) / 255).argmax(1)
        assert (found == labels).float().mean() > 0.9

    def test_training_within_a_ball_makes_robust_there(self):
        threat, settings = L2(3.0), recipe(epochs=8, augmentation="none", schedule="one-cycle", learning_rate=0.1)
        pixels, labels = squares(60)
        images = pixels.permute(0, 3, 1, 2) / 255
        robust = []
        for trained_within in (None, threat):
            network, _ = trained(settings, threat=trained_within, images=(pixels, labels))
            found = network.eval()(pgd(network, images, labels, threat, Attack(steps=5))).argmax(1)
            robust.append((found == labels).float().mean())
        assert robust[1] > robust[0] + 0.3

    def test_a_loss_that_is_not_finite_stops_it_and_says_what_to_change(self):
        with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step 4, .*lower training\.learning_rate"):
            trained(recipe(learning_rate=1e30))

    def test_the_learning_rate_can_stand_in_for_the_recipes(self):
        assert same(trained(recipe(), learning_rate=0.01)[0], trained(recipe(learning_rate=0.01))[0])
        assert not same(trained(recipe(), learning_rate=0.01)[0], trained()[0])

    def test_is_sgd_on_the_augmented_batches_of_the_epochs_order(self):
        """The loop once more, written down plainly, in the same arithmetic."""
        settings = recipe(epochs=1, momentum=0.0, weight_decay=0.0, label_smoothing=0.2, augmentation="flip")
        pixels, labels = squares()
        network = build("resnet8_w4", CLASSES, seed=0).to(memory_format=torch.channels_last)
        augmenter = Augmenter(pixels, "flip", SIDE, 0)
        for indices in randomness.order(0, 0, len(labels)).split(10):
            loss = F.cross_entropy(network(augmenter.batch(indices, 0)), labels[indices], label_smoothing=0.2)
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                    parameter -= settings.learning_rate * gradient
        found = trained(settings)[0].state_dict()
        for name, value in network.state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)

    def test_the_adversary_does_not_see_label_smoothing(self):
        seen = []

        def watch(images, labels, epoch, indices):
            seen.append(images)
            return images

        pixels, labels = squares(10)
        for smoothing in (0.0, 0.3):
            network = build("resnet8_w4", CLASSES)
            adversary = Adversary(network, L2(0.5), Attack(steps=2), 0)
            perturb = lambda *batch, a=adversary: watch(a(*batch), *batch[1:])  # noqa: E731
            settings = recipe(epochs=1, label_smoothing=smoothing)
            fit(network, pixels, labels, settings, input_size=SIDE, seed=0, perturb=perturb)
        assert torch.equal(*seen)

    def test_the_adversary_attacks_the_network_as_it_is_at_every_step(self):
        differences = []

        def watch(images, labels, epoch, indices):
            found = adversary(images, labels, epoch, indices)
            differences.append((found - pgd(network, images, labels, L2(0.5), Attack(steps=2))).abs().max())
            return found

        network = build("resnet8_w4", CLASSES)
        adversary = Adversary(network, L2(0.5), Attack(steps=2), 0)
        fit(network, *squares(), recipe(epochs=1), input_size=SIDE, seed=0, perturb=watch)
        assert len(differences) == 4
        assert max(differences) < 1e-4

    def test_says_every_epoch_how_it_goes(self, caplog):
        with caplog.at_level(logging.INFO, "robust_transfer"):
            trained()
        assert len(caplog.messages) == 2
        assert caplog.messages[0].startswith("epoch 1/2  loss ")
        for part in (" accuracy ", " % ", " images/s ", " s left"):
            assert part in caplog.messages[0]
        assert caplog.messages[1].endswith("  0 s left")

    def test_says_more_within_a_long_epoch(self, caplog, monkeypatch):
        monkeypatch.setattr(training, "SPEAK_EVERY", 0.0)
        with caplog.at_level(logging.INFO, "robust_transfer"):
            trained(recipe(epochs=1))
        assert [message.split("  ")[0] for message in caplog.messages] == [
            *("epoch 1/1 (27 %)", "epoch 1/1 (55 %)", "epoch 1/1 (83 %)", "epoch 1/1")
        ]

    def test_rows_say_what_was_seen_and_what_it_cost(self, tmp_path):
        _, epochs = trained(recipe(epochs=2, schedule="step", step_epochs=1))
        assert [epoch.epoch for epoch in epochs] == [1, 2]
        assert [epoch.learning_rate for epoch in epochs] == pytest.approx([0.05, 0.005])
        assert all(epoch.images == 36 and epoch.seconds > 0 and epoch.peak_memory_mb > 1 for epoch in epochs)
        training.write_epochs(tmp_path / "epochs.csv", epochs)
        lines = (tmp_path / "epochs.csv").read_text().splitlines()
        assert lines[0] == "epoch,loss,train_accuracy,learning_rate"
        assert lines[1] == f"1,{epochs[0].loss},{epochs[0].train_accuracy},0.05"
        cost = training.cost(epochs)
        assert cost["images"] == 72
        assert [row["epoch"] for row in cost["epochs"]] == [1, 2]

    def test_a_job_imports_neither_torchs_compiler_nor_torchvision(self):
        """They cost more CPU time than a short fine-tuning job's own work."""
        code = """if True:
            import sys, torch
            from robust_transfer.training import *
            from robust_transfer.networks.build import build
            network = build("resnet8_w4", 2)
            pixels = torch.zeros(4, 16, 16, 3, dtype=torch.uint8)
            recipe = Recipe(epochs=1, batch_size=2, precision="bf16", augmentation="square-resized-crop-flip")
            adversary = Adversary(network, L2(0.1), Attack(random_start=True), 0)
            fit(network, pixels, torch.arange(4) % 2, recipe, input_size=8, seed=0, perturb=adversary)
            print(*(name for name in ("torch._dynamo", "torchvision", "pandas") if name in sys.modules))
        """.replace(
            "import *", "import Adversary, Attack, Recipe, fit\n            from robust_transfer.attacks import L2"
        )
        workflow = Path(training.__file__).parents[1]
        done = subprocess.run([sys.executable, "-c", code], cwd=workflow, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == ""


class TestSchedules:
    """Golden values by hand, at 4 epochs of 5 steps."""

    def rates(self, **settings):
        chosen = Recipe(epochs=4, **settings)
        return [learning_rate_at(chosen, 0.8, step, 5) for step in range(20)]

    def test_step(self):
        rates = self.rates(schedule="step", step_epochs=2, step_factor=4)
        assert rates == pytest.approx([0.8] * 10 + [0.2] * 10)

    def test_cosine(self):
        rates = self.rates(schedule="cosine")
        assert rates[0] == 0.8
        assert rates[10] == pytest.approx(0.4)
        assert rates[5] == pytest.approx(0.8 * (1 + math.cos(math.pi / 4)) / 2)
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] > 0

    def test_one_cycle(self):
        rates = self.rates(schedule="one-cycle", warmup_fraction=0.25)
        assert rates[:5] == pytest.approx([0.16, 0.32, 0.48, 0.64, 0.8])
        assert rates[5:] == pytest.approx([0.8 * (20 - step) / 15 for step in range(5, 20)])
        assert rates[-1] == pytest.approx(0.8 / 15)

    def test_one_cycle_without_warm_up_starts_at_the_peak(self):
        rates = self.rates(schedule="one-cycle", warmup_fraction=0.0)
        assert rates == pytest.approx([0.8 * (20 - step) / 20 for step in range(20)])


class TestBatches:
    @pytest.mark.parametrize(
        ("n", "batch_size", "group", "sizes"),
        [
            (20, 10, None, [10, 10]),
            (23, 10, None, [10, 10, 3]),
            (21, 10, None, [10, 10]),  # a single image has no variance
            (22, 10, None, [10, 10, 2]),
            (4, 10, None, [4]),
            (26, 10, 5, [10, 10, 5]),  # nor has a last group of one
            (27, 10, 5, [10, 10, 7]),
            (21, 10, 5, [10, 10]),
        ],
    )
    def test_sizes(self, n, batch_size, group, sizes):
        assert batch_sizes(n, batch_size, group) == sizes

    def test_a_single_image_is_refused(self):
        with pytest.raises(TrainingError, match="1 training images: BatchNorm needs at least two"):
            batch_sizes(1, 10, None)

    def test_the_image_left_out_is_another_in_every_epoch(self):
        left_out = {randomness.order(0, epoch, 21)[-1].item() for epoch in range(8)}
        assert len(left_out) > 3


class TestBatchNormGroups:
    def step(self, group, order=slice(None), n=12):
        """Gradients and statistics of one batch in float64."""
        network = build("resnet8_w4", CLASSES, seed=0).double().train()
        pixels, labels = squares(n)
        images, labels = (pixels.permute(0, 3, 1, 2) / 255.0).double()[order], labels[order]
        for part, part_labels in groups(network, images, labels, group):
            (F.cross_entropy(network(part), part_labels, reduction="sum") / n).backward()
        buffers = {name: value.clone() for name, value in network.named_buffers() if "running" in name}
        assert all(module.momentum == 0.1 for module in network.modules() if isinstance(module, nn.BatchNorm2d))
        return {name: parameter.grad for name, parameter in network.named_parameters()}, buffers

    def test_a_group_of_the_whole_batch_is_the_default(self):
        for found, expected in zip(self.step(12), self.step(None), strict=True):
            assert all(torch.equal(found[name], expected[name]) for name in expected)

    def test_statistics_move_once_towards_the_mean_over_groups(self):
        """Before the first BatchNorm lies one convolution, so its groups' statistics can be had directly."""
        _, buffers = self.step(4)
        network = build("resnet8_w4", CLASSES, seed=0).double()
        pixels, _ = squares(12)
        with torch.no_grad():
            x = network.body.stem[0](network.normalise((pixels.permute(0, 3, 1, 2) / 255.0).double()))
        means = torch.stack([part.mean((0, 2, 3)) for part in x.split(4)]).mean(0)
        variances = torch.stack([part.transpose(0, 1).flatten(1).var(1) for part in x.split(4)]).mean(0)
        found = buffers["body.stem.1.running_mean"], buffers["body.stem.1.running_var"]
        torch.testing.assert_close(found, (0.1 * means, 0.9 + 0.1 * variances), rtol=1e-10, atol=1e-10)

    def test_the_order_of_groups_does_not_matter(self):
        """So that processes and accumulation agree, whoever saw which group."""
        swapped = torch.tensor([8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7])
        for found, expected in zip(self.step(4), self.step(4, swapped), strict=True):
            for name in expected:
                torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-10)

    def test_groups_are_not_the_whole_batch(self):
        grouped, whole = self.step(4)[0], self.step(None)[0]
        assert (grouped["body.stem.0.weight"] - whole["body.stem.0.weight"]).abs().max() > 1e-3

    def test_training_in_groups_works(self):
        _, epochs = trained(recipe(batchnorm_group=5), threat=L2(0.1))
        assert epochs[-1].loss < epochs[0].loss


class TestAugmentation:
    @pytest.mark.parametrize("kind", ["none", "flip", "crop-flip", "square-resized-crop-flip"])
    def test_an_image_does_not_depend_on_its_batch(self, kind):
        pixels, _ = squares(20, 2 * SIDE if "resized" in kind else SIDE)
        augmenter = Augmenter(pixels, kind, SIDE, seed=3)
        together = augmenter.batch(torch.arange(20), epoch=1)
        assert together.shape == (20, 3, SIDE, SIDE)
        assert together.dtype == torch.float32
        assert 0 <= together.min() < together.max() <= 1
        some = torch.tensor([13, 2, 7])
        torch.testing.assert_close(augmenter.batch(some, epoch=1), together[some], rtol=0, atol=1e-6)
        if kind != "none":
            assert not torch.equal(augmenter.batch(some, epoch=2), together[some])
            assert not torch.equal(Augmenter(pixels, kind, SIDE, seed=4).batch(some, epoch=1), together[some])

    def test_none_changes_nothing(self):
        pixels, _ = squares(4)
        found = Augmenter(pixels, "none", SIDE, 0).batch(torch.arange(4), 0)
        assert torch.equal((found * 255).round().to(torch.uint8), pixels.permute(0, 3, 1, 2))
        assert found.is_contiguous(memory_format=torch.channels_last)

    def test_flip_turns_half_of_the_images(self):
        pixels, _ = squares(200)
        plain = pixels.permute(0, 3, 1, 2) / 255
        found = Augmenter(pixels, "flip", SIDE, 0).batch(torch.arange(200), 0)
        kept, turned = (found == plain).all((1, 2, 3)), (found == plain.flip(3)).all((1, 2, 3))
        assert (kept | turned).all()
        assert 75 < turned.sum() < 125

    def test_crops_are_windows_of_the_padded_image_at_every_offset(self):
        pixels, _ = squares(1)
        pixels = pixels.expand(400, -1, -1, -1)
        found = Augmenter(pixels, "crop-flip", SIDE, 0).batch(torch.arange(400), 0)
        padded = F.pad(pixels[0].permute(2, 0, 1) / 255, (2, 2, 2, 2))
        windows = torch.stack(
            [padded[:, top : top + SIDE, left : left + SIDE] for top in range(5) for left in range(5)]
        )
        either = torch.cat([windows, windows.flip(3)])
        equal = (found[:, None] == either[None]).all((2, 3, 4))
        assert (equal.sum(1) == 1).all()
        assert (equal.sum(0) > 0).all()  # all 25 offsets, both ways round

    def test_resized_crops_are_pillows(self):
        """Where Pillow resizes the same box by antialiased bilinear interpolation, but for its rounding to bytes."""
        side, n, seed, epoch = 2 * SIDE, 60, 5, 2
        pixels, _ = squares(n, side)
        found = Augmenter(pixels, "square-resized-crop-flip", SIDE, seed).batch(torch.arange(n), epoch)
        areas = []
        numbers = randomness.per_image(seed, randomness.AUGMENTATION, epoch, torch.arange(n), 6).tolist()
        for image, result, (flip, area, ratio, left, top, _) in zip(pixels.numpy(), found, numbers, strict=True):
            area, ratio = side**2 * (0.08 + 0.92 * area), (3 / 4) ** (1 - ratio) * (4 / 3) ** ratio
            width, height = min(side, (area * ratio) ** 0.5), min(side, (area / ratio) ** 0.5)
            left, top = left * (side - width), top * (side - height)
            areas.append(width * height / side**2)
            box = (left, top, left + width, top + height)
            expected = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box))
            expected = expected[:, ::-1] if flip < 0.5 else expected
            inner = (slice(None), slice(1, -1), slice(1, -1))  # Pillow looks beyond the box at its edges
            difference = result.numpy() * 255 - expected.transpose(2, 0, 1)
            assert np.abs(difference[inner]).max() <= 1.01
        assert min(areas) < 0.2
        assert max(areas) > 0.9


class TestSgd:
    """Three steps on ½·w², by hand."""

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"momentum": 0.0, "weight_decay": 0.0}, [0.9, 0.81, 0.729]),
            ({"momentum": 0.5, "weight_decay": 0.0}, [0.9, 0.76, 0.614]),
            ({"momentum": 0.5, "weight_decay": 0.0, "nesterov": True}, [0.85, 0.6975, 0.559125]),
            ({"momentum": 0.0, "weight_decay": 1.0}, [0.8, 0.64, 0.512]),
        ],
    )
    def test_steps(self, settings, expected):
        w = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
        optimiser = SGD([w], **{"nesterov": False, **settings})
        for value in expected:
            optimiser.zero_grad()
            (w.square().sum() / 2).backward()
            optimiser.step(0.1)
            torch.testing.assert_close(w.detach(), torch.full((2, 2), value, dtype=torch.float64))

    def test_a_parameter_without_a_gradient_is_an_error(self):
        optimiser = SGD([nn.Parameter(torch.ones(1))], momentum=0.9, weight_decay=0.0, nesterov=False)
        with pytest.raises(RuntimeError, match="1 of 1 parameters have no gradient"):
            optimiser.step(0.1)

    def test_frozen_parameters_stay(self):
        frozen, learning = nn.Parameter(torch.ones(1), requires_grad=False), nn.Parameter(torch.ones(1))
        optimiser = SGD([frozen, learning], momentum=0.9, weight_decay=0.1, nesterov=False)
        learning.sum().backward()
        optimiser.step(0.1)
        assert frozen == 1
        assert learning < 1
