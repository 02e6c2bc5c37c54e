"""The training loop: the same seed gives the same bits, and each part of it follows its definition."""

import logging
import math
from contextlib import closing

import pytest
import torch
import torch.nn.functional as F
from robust_transfer import randomness
from robust_transfer.attacks import L2, Linf, pgd
from robust_transfer.configuration.training import Attack, Check
from robust_transfer.loading.augmentation import Augmenter
from robust_transfer.networks.build import build
from robust_transfer.networks.folding import Folded
from robust_transfer.training import progress
from robust_transfer.training.averaging import Average
from robust_transfer.training.divergence import DivergedError, FiniteSteps, unsound_heads
from robust_transfer.training.loop import Adversary, checked_images, fit, has_random_layers
from robust_transfer.training.schedules import TrainingError
from robust_transfer.training.sgd import SGD
from support.prepared_datasets import squares
from support.training import CLASSES, SIDE, augmented, loader_of, short_recipe, trained


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


class TestFit:
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    @pytest.mark.parametrize("threat", [None, L2(0.3)], ids=str)
    def test_the_same_seed_gives_the_same_bits(self, threat, precision):
        settings = short_recipe(precision=precision)
        one, epochs = trained(settings, threat=threat)
        torch.manual_seed(99)  # the global random state plays no part
        two, again = trained(settings, threat=threat)
        assert same(one, two)
        assert [epoch.loss for epoch in epochs] == [epoch.loss for epoch in again]
        assert not same(one, trained(settings, threat=threat, seed=1)[0])

    @pytest.mark.parametrize("threat", [None, L2(0.3)], ids=str)
    def test_a_head_in_float32_changes_training_in_bf16_alone(self, threat):
        one, other = (
            trained(short_recipe(precision="bf16", fp32_head=head), threat=threat)[0] for head in (False, True)
        )
        assert not same(one, other)
        one, other = (
            trained(short_recipe(precision="fp32", fp32_head=head), threat=threat)[0] for head in (False, True)
        )
        assert same(one, other)

    def test_the_attack_of_training_sees_that_head(self):
        network, images = build("resnet8_w4", 3).eval(), torch.rand(2, 3, 16, 16)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for head, dtype in ((False, torch.bfloat16), (True, torch.float32)):
                assert Folded(network, fp32_head=head)(images).dtype == dtype

    @pytest.mark.parametrize("threat", [L2(0.0), Linf(0.0)], ids=str)
    def test_eps_0_is_standard_training_bit_for_bit(self, threat):
        assert same(trained()[0], trained(threat=threat)[0])

    def test_a_positive_eps_changes_training(self):
        assert not same(trained()[0], trained(threat=L2(0.01))[0])

    @pytest.mark.parametrize("name", ["timm_test_resnet", "timm_test_vit"])
    def test_timms_networks_train_under_attack_where_torch_fx_follows_them_and_where_not(self, name):
        pytest.importorskip("timm", reason="not installed: make setup EXTRAS=timm")
        pixels, labels = squares(20, side=32)
        settings = short_recipe(epochs=4, augmentation="none")
        network = build(name, CLASSES, input_size=32)
        adversary = Adversary(network, L2(0.1), Attack(steps=1), 0, 32)
        loader = loader_of(pixels, labels, settings, input_size=32)
        epochs = fit(network, loader, settings, input_size=32, seed=0, perturb=adversary)
        assert epochs[-1].loss < epochs[0].loss

    def test_separable_images_are_learnt(self):
        settings = short_recipe(epochs=6, augmentation="flip", schedule="one-cycle", learning_rate=0.1)
        network, epochs = trained(settings)
        assert epochs[-1].train_accuracy > 90
        assert epochs[-1].loss < 0.5 * epochs[0].loss
        pixels, labels = squares(seed=1)
        with torch.no_grad():
            predicted = network.eval()(pixels.permute(0, 3, 1, 2) / 255).argmax(1)
        assert (predicted == labels).float().mean() > 0.9

    def test_adversarial_training_makes_robust(self):
        threat, settings = L2(3.0), short_recipe(epochs=8, augmentation="none", schedule="one-cycle", learning_rate=0.1)
        pixels, labels = squares(60)
        images = pixels.permute(0, 3, 1, 2) / 255
        robust = []
        for trained_within in (None, threat):
            network, _ = trained(settings, threat=trained_within, images=(pixels, labels))
            predicted = network.eval()(pgd(network, images, labels, threat, Attack(steps=5))).argmax(1)
            robust.append((predicted == labels).float().mean())
        assert robust[1] > robust[0] + 0.3

    def test_a_loss_that_is_not_finite_stops_it_and_says_what_to_change(self):
        with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step 4, .*lower training\.learning_rate"):
            trained(short_recipe(learning_rate=1e30))

    def test_the_first_step_whose_loss_is_not_finite_is_counted_whenever_it_is_noticed(self):
        finite = FiniteSteps((), torch.device("cpu"))
        with pytest.raises(DivergedError, match="at step 4, since step 2, learning rate 1e") as caught:
            trained(short_recipe(learning_rate=1e30), finite=finite)
        assert finite.diverged_at() == [2]
        assert caught.value.epochs == []
        finite = FiniteSteps((), torch.device("cpu"))
        trained(finite=finite)
        assert (finite.diverged_at(), finite.steps) == ([None], 8)

    def test_steps_are_counted_by_head_and_across_epochs(self):
        finite = FiniteSteps((2,), torch.device("cpu"))
        for losses in ([1.0, 1.0], [2.0, math.nan], [1.0, 1.0]):  # sums begin anew with every epoch
            finite.update(torch.tensor(losses))
        assert finite.diverged_at() == [None, 2]
        again = FiniteSteps((2,), torch.device("cpu"))
        again.restore(3, finite.counts)
        again.update(torch.tensor([math.inf, 1.0]))
        assert again.diverged_at() == [4, 2]
        again.restore(3, None)  # a state that was saved before there were counts
        assert again.diverged_at() == [None, None]

    @pytest.mark.parametrize("name", ["body", "head"])
    def test_a_network_that_the_last_step_spoilt_is_known(self, name):
        network = build("resnet8_w4", CLASSES)
        assert unsound_heads(network) == [False]
        with torch.no_grad():
            next(network.get_submodule(name).parameters()).view(-1)[0] = math.nan
        assert unsound_heads(network) == [True]

    def test_a_given_learning_rate_replaces_the_recipes(self):
        assert same(trained(short_recipe(), learning_rate=0.01)[0], trained(short_recipe(learning_rate=0.01))[0])
        assert not same(trained(short_recipe(), learning_rate=0.01)[0], trained()[0])

    def test_is_sgd_on_the_augmented_batches_of_the_epochs_order(self):
        """Compared with the same loop in plain code."""
        settings = short_recipe(epochs=1, momentum=0.0, weight_decay=0.0, label_smoothing=0.2, augmentation="flip")
        pixels, labels = squares()
        network = build("resnet8_w4", CLASSES, seed=0).to(memory_format=torch.channels_last)
        augmenter = Augmenter(pixels, "flip", SIDE, 0)
        for indices in randomness.order(0, 0, len(labels)).split(10):
            loss = F.cross_entropy(network(augmenter.batch(indices, 0)), labels[indices], label_smoothing=0.2)
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                    parameter.sub_(settings.learning_rate * gradient)
        actual = trained(settings)[0].state_dict()
        for name, value in network.state_dict().items():
            torch.testing.assert_close(actual[name], value, rtol=1e-4, atol=1e-6)

    def test_the_adversary_does_not_see_label_smoothing(self):
        seen = []

        def watch(images, labels, epoch, indices):
            seen.append(images)
            return images

        pixels, labels = squares(10)
        for smoothing in (0.0, 0.3):
            network = build("resnet8_w4", CLASSES)
            adversary = Adversary(network, L2(0.5), Attack(steps=2), 0, SIDE)
            perturb = lambda *batch, a=adversary: watch(a(*batch), *batch[1:])  # noqa: E731
            settings = short_recipe(epochs=1, label_smoothing=smoothing)
            fit(network, loader_of(pixels, labels, settings), settings, input_size=SIDE, seed=0, perturb=perturb)
        assert torch.equal(*seen)

    def test_the_adversary_attacks_the_network_as_it_is_at_every_step(self):
        differences: list[torch.Tensor] = []

        def watch(images, labels, epoch, indices):
            perturbed = adversary(images, labels, epoch, indices)
            differences.append((perturbed - pgd(network, images, labels, L2(0.5), Attack(steps=2))).abs().max())
            return perturbed

        network = build("resnet8_w4", CLASSES)
        adversary = Adversary(network, L2(0.5), Attack(steps=2), 0, SIDE)
        settings = short_recipe(epochs=1)
        fit(network, loader_of(*squares(), settings), settings, input_size=SIDE, seed=0, perturb=watch)
        assert len(differences) == 4
        assert max(differences) < 1e-4

    def test_weights_are_folded_once_a_step_whatever_the_number_of_groups(self, monkeypatch):
        steps: list[int] = []
        refresh = Folded.refresh

        def counted(folded: Folded) -> None:
            steps.append(1)
            refresh(folded)

        monkeypatch.setattr(Folded, "refresh", counted)
        trained(short_recipe(epochs=1, batch_size=12, batchnorm_group=4), threat=L2(0.5))
        assert len(steps) == 1 + 36 // 12  # once when it is made

    def test_each_epoch_is_logged(self, caplog):
        with caplog.at_level(logging.INFO, "robust_transfer"):
            trained()
        assert len(caplog.messages) == 2
        assert caplog.messages[0].startswith("epoch 1/2  loss ")
        for part in (" accuracy ", " % ", " images/s ", " s left"):
            assert part in caplog.messages[0]
        assert caplog.messages[1].endswith("  0 s left")

    def test_a_long_epoch_is_logged_in_between(self, caplog, monkeypatch):
        monkeypatch.setattr(progress, "LOG_EVERY", 0.0)
        with caplog.at_level(logging.INFO, "robust_transfer"):
            trained(short_recipe(epochs=1))
        assert [message.split("  ")[0] for message in caplog.messages] == [
            *("epoch 1/1 (27 %)", "epoch 1/1 (55 %)", "epoch 1/1 (83 %)", "epoch 1/1")
        ]

    def test_rows_have_results_and_cost(self, tmp_path):
        _, epochs = trained(short_recipe(epochs=2, schedule="step", step_epochs=1))
        assert [epoch.epoch for epoch in epochs] == [1, 2]
        assert [epoch.learning_rate for epoch in epochs] == pytest.approx([0.05, 0.005])
        assert all(epoch.images == 36 and epoch.seconds > 0 and epoch.peak_memory_mb > 1 for epoch in epochs)
        progress.write_epochs(tmp_path / "epochs.csv", epochs)
        lines = (tmp_path / "epochs.csv").read_text().splitlines()
        assert lines[0] == "epoch,side,loss,train_accuracy,clean_accuracy,robust_accuracy,learning_rate"
        assert lines[1] == f"1,16,{epochs[0].loss},{epochs[0].train_accuracy},,,0.05"
        cost = progress.cost(epochs, None)
        assert cost["images"] == 72
        assert [row["epoch"] for row in cost["epochs"]] == [1, 2]

    def test_training_in_groups_works(self):
        _, epochs = trained(short_recipe(batchnorm_group=5), threat=L2(0.1))
        assert epochs[-1].loss < epochs[0].loss

    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_images_read_by_workers_give_the_same_bits(self, workers):
        settings = short_recipe()
        network = build("resnet8_w4", CLASSES, seed=0)
        perturb = Adversary(network, L2(0.3), Attack(steps=2, random_start=True), 0, SIDE)
        with closing(loader_of(*squares(1500), settings, workers=workers, resident_mb=1)) as loader:
            assert type(loader).__name__ == "Streaming"
            few = settings.model_copy(update={"epochs": 1, "batch_size": 500})
            fit(network, loader, few, input_size=SIDE, seed=0, perturb=perturb)
        expected, _ = trained(few, threat=L2(0.3), images=squares(1500))
        assert same(network, expected)

    def test_dropout_is_reproducible(self):
        def dropping(seed):
            torch.manual_seed(seed)
            network = build("resnet8_w4", CLASSES, seed=0)
            network.body.add_module("dropout", torch.nn.Dropout(0.5))
            network.body.forward = lambda x, body=network.body: body.dropout(type(body).forward(body, x))
            settings = short_recipe(epochs=1)
            fit(network, loader_of(*squares(), settings), settings, input_size=SIDE, seed=0)
            return network

        assert same(dropping(1), dropping(2))

    def test_growing_images_and_an_eps_that_grows_with_them(self):
        seen: list[tuple[int, int, float]] = []

        def watch(images, labels, epoch, indices):
            perturbed = adversary(images, labels, epoch, indices)
            seen.append((epoch, images.shape[-1], float((perturbed - images).flatten(1).norm(dim=1).max())))
            return perturbed

        network = build("resnet8_w4", CLASSES)
        adversary = Adversary(network, L2(0.8), Attack(steps=2), 0, SIDE)
        settings = short_recipe(epochs=4, start_scale=0.5, growing_fraction=0.5)
        epochs = fit(network, loader_of(*squares(), settings), settings, input_size=SIDE, seed=0, perturb=watch)
        assert [epoch.side for epoch in epochs] == [8, 12, 16, 16]
        for epoch, side, size in seen:
            assert side == epochs[epoch].side
            assert 0.8 * 0.8 < size * SIDE / side < 1.0001 * 0.8  # less where pixels were clamped

    def test_an_average_has_its_own_batchnorm_statistics(self):
        """With a decay of 0.9 the average differs from the last weights; with one near 0 it equals them."""
        same_images = {"epochs": 4, "learning_rate": 0.2, "augmentation": "none", "average_images": 40}
        last, _ = trained(short_recipe(**same_images), images=squares(40))
        average, epochs = trained(short_recipe(**same_images, average_decay=0.9), images=squares(40), check=Check())
        barely, _ = trained(short_recipe(**same_images, average_decay=1e-9), images=squares(40))
        weights = [network.get_parameter("body.stem.0.weight") for network in (last, average, barely)]
        torch.testing.assert_close(weights[2], weights[0])
        assert (weights[1] - weights[0]).abs().max() > 1e-3
        statistics = [network.get_buffer("body.stem.1.running_mean") for network in (last, average, barely)]
        assert (statistics[2] - statistics[0]).abs().max() > 1e-4  # means over images, not over the last steps
        pixels, _ = squares(40)
        mean = average.get_submodule("body.stem.0")(average.normalise(augmented(pixels))).mean((0, 2, 3))
        torch.testing.assert_close(statistics[1], mean, rtol=1e-3, atol=1e-3)
        assert epochs[-1].clean_accuracy is not None

    def test_checks_do_not_change_training(self):
        network, epochs = trained(
            short_recipe(epochs=4), threat=L2(0.3), images=squares(80), check=Check(images=5, every=3)
        )
        assert same(network, trained(short_recipe(epochs=4), threat=L2(0.3), images=squares(80))[0])
        assert [epoch.clean_accuracy is None for epoch in epochs] == [True, True, False, False]
        for epoch in epochs[2:]:
            assert epoch.clean_accuracy is not None
            assert epoch.robust_accuracy is not None
            assert epoch.robust_accuracy % 20 == 0  # of five images
            assert epoch.robust_accuracy <= epoch.clean_accuracy
        plain = trained(short_recipe(epochs=1), check=Check())[1]
        assert plain[0].clean_accuracy is not None
        assert plain[0].robust_accuracy is None


def test_a_batch_of_one_image_that_batchnorm_cannot_take_is_refused_with_what_to_write():
    loader = loader_of(*squares(4), short_recipe(batch_size=1), input_size=32)
    with pytest.raises(TrainingError, match=r"batches of one image: at 32 px .* set training.batch_size to 2 or more"):
        fit(build("resnet18", CLASSES), loader, short_recipe(batch_size=1), input_size=32, seed=0)


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
        w = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
        optimiser = SGD([w], **{"nesterov": False, **settings})
        for value in expected:
            optimiser.zero_grad()
            (w.square().sum() / 2).backward()
            optimiser.step(0.1)
            torch.testing.assert_close(w.detach(), torch.full((2, 2), value, dtype=torch.float64))

    def test_a_parameter_without_a_gradient_is_an_error(self):
        optimiser = SGD([torch.nn.Parameter(torch.ones(1))], momentum=0.9, weight_decay=0.0, nesterov=False)
        with pytest.raises(RuntimeError, match="1 of 1 parameters have no gradient"):
            optimiser.step(0.1)

    def test_frozen_parameters_stay(self):
        frozen, learning = torch.nn.Parameter(torch.ones(1), requires_grad=False), torch.nn.Parameter(torch.ones(1))
        optimiser = SGD([frozen, learning], momentum=0.9, weight_decay=0.1, nesterov=False)
        learning.sum().backward()
        optimiser.step(0.1)
        assert frozen == 1
        assert learning < 1


class TestAverage:
    def test_the_first_steps_forget_the_initial_weights(self):
        """Decays min(0.99, 0.1, 0.1818…) by hand, on a weight that goes 1, 2, 4."""
        weight = torch.nn.Linear(1, 1, bias=False)
        set_to(weight, 1.0)
        average = Average(weight, decay=0.99)
        for step, value in enumerate((2.0, 4.0)):
            set_to(weight, value)
            average.update(step)
        first = 0.1 * 1 + 0.9 * 2
        assert average.values[0].item() == pytest.approx(2 / 11 * first + 9 / 11 * 4)
        average.install()
        assert weight.weight.item() == average.values[0].item()

    def test_later_the_decay_is_the_given_one(self):
        weight = torch.nn.Linear(1, 1, bias=False)
        set_to(weight, 1.0)
        average = Average(weight, decay=0.5)
        set_to(weight, 3.0)
        average.update(10**6)
        assert average.values[0].item() == 2.0


def set_to(layer, value):
    with torch.no_grad():
        layer.weight.fill_(value)


@pytest.mark.parametrize(("images", "n", "measured"), [(1000, 160, 10), (5, 160, 5), (1000, 3, 1)])
def test_a_check_measures_on_a_sixteenth_of_the_images_at_most(images, n, measured):
    assert checked_images(Check(images=images), n) == measured


@pytest.mark.parametrize(("layer", "random"), [(torch.nn.Dropout(0.1), True), (torch.nn.Dropout(0.0), False)])
def test_layers_that_draw_random_numbers_are_recognised(layer, random):
    assert has_random_layers(torch.nn.Sequential(torch.nn.Linear(2, 2), layer)) == random
