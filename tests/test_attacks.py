"""PGD stays within its ball and the image range, finds higher losses, and leaves the network as it was."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from robust_transfer import randomness
from robust_transfer.attacks import L2, Linf, Starts, attacked, pgd, threat_model
from robust_transfer.configuration.training import Attack
from robust_transfer.networks.build import build
from torch import nn

NETWORK = build("resnet8_w4", 5, seed=1)
STARTS = Starts(seed=7, epoch=2, indices=torch.arange(16))


def images(n=16, side=16, seed=0):
    """Images with pixels at and near both ends of the range, where clamping acts."""
    x = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 1.4 - 0.2
    return x.clamp(0, 1)


def labels(n=16, seed=0):
    return torch.randint(0, 5, (n,), generator=torch.Generator().manual_seed(seed))


def losses(x, y, network=NETWORK):
    with torch.no_grad(), attacked(network):
        return F.cross_entropy(network(x), y, reduction="none")


def radius(threat, delta):
    flat = delta.flatten(1)
    return flat.norm(dim=1) if threat.norm == "l2" else flat.abs().amax(1)


THREATS = [L2(1e-3), L2(0.25), L2(3.0), L2(200.0), Linf(1 / 255), Linf(8 / 255), Linf(0.6)]


@pytest.mark.parametrize("threat", THREATS, ids=str)
class TestBall:
    @pytest.mark.parametrize(
        "attack",
        [
            Attack(steps=1),
            Attack(steps=3),
            Attack(steps=3, use_best=False),
            Attack(steps=2, random_start=True, restarts=2),
            Attack(steps=2, random_start=True, relative_step_size=5.0),
        ],
        ids=["one step", "default", "last iterate", "restarts", "large steps"],
    )
    def test_perturbed_images_stay_in_the_ball_and_in_range(self, threat, attack):
        x = images()
        found = pgd(NETWORK, x, labels(), threat, attack, STARTS)
        assert found.min() >= 0
        assert found.max() <= 1
        assert (radius(threat, found - x) <= threat.eps * (1 + 1e-5) + 1e-6).all()
        assert (radius(threat, found - x) > 0).any()

    def test_projection_is_the_nearest_point_of_the_ball(self, threat):
        inside = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1))
        inside *= 0.9 * threat.eps / radius(threat, inside).amax()
        torch.testing.assert_close(threat.project(inside), inside)
        outside = 10 * inside / radius(threat, inside).view(-1, 1, 1, 1) * threat.eps
        projected = threat.project(outside)
        torch.testing.assert_close(radius(threat, projected), torch.full((8,), threat.eps))
        toward = projected + 0.1 * (
            inside - projected
        )  # any other point of the ball is farther from what was projected
        assert ((toward - outside).flatten(1).norm(dim=1) >= (projected - outside).flatten(1).norm(dim=1)).all()

    def test_a_step_has_its_length_along_the_gradient(self, threat):
        gradient = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1))
        gradient[0] = 0
        step = threat.step(gradient, 0.5)
        torch.testing.assert_close(radius(threat, step)[1:], torch.full((7,), 0.5))
        assert (step[0] == 0).all()
        assert ((step * gradient).flatten(1).sum(1)[1:] > 0).all()

    def test_a_random_start_depends_on_seed_epoch_image_restart_and_pixel_alone(self, threat):
        x = images()
        start = threat.random_start(STARTS.keys(0), x)
        assert (radius(threat, start) <= threat.eps * (1 + 1e-5)).all()
        some = torch.tensor([11, 3])
        few = threat.random_start(Starts(7, 2, some).keys(0), x[:2].contiguous(memory_format=torch.channels_last))
        assert torch.equal(few, start[some])
        others = [Starts(8, 2, some).keys(0), Starts(7, 3, some).keys(0), Starts(7, 2, some).keys(1)]
        for keys in others:
            assert (threat.random_start(keys, x[:2]) != few).float().mean() > 0.9

    def test_random_starts_point_everywhere(self, threat):
        """The mean over images and pixels of n independent symmetric numbers shrinks as 1 / sqrt(n)."""
        start = threat.random_start(torch.arange(400), torch.zeros(400, 3, 8, 8))
        scale = start.square().mean().sqrt()
        assert start.mean().abs() < 4 * scale / start.numel() ** 0.5
        by_pixel = start.flatten(1).mean(0)
        assert by_pixel.square().mean().sqrt() == pytest.approx(scale.item() / 20, rel=0.15)

    @pytest.mark.parametrize("n", [0, 1])
    @pytest.mark.parametrize("attack", [Attack(steps=2), Attack(steps=2, random_start=True, restarts=2)], ids=str)
    def test_batches_of_no_image_and_of_one_are_attacked(self, threat, attack, n):
        starts = Starts(7, 2, torch.arange(n))
        assert pgd(NETWORK, images(n), labels(n), threat, attack, starts).shape == (n, 3, 16, 16)
        assert threat.random_start(starts.keys(0), images(n)).shape == (n, 3, 16, 16)


def test_l2_starts_fill_the_ball_evenly():
    """In few dimensions the radius shows: its cube is uniform for three numbers."""
    start = L2(2.0).random_start(torch.arange(4000), torch.zeros(4000, 3, 1, 1))
    share = (start.flatten(1).norm(dim=1) / 2) ** 3
    assert share.mean() == pytest.approx(0.5, abs=0.02)
    assert share.max() <= 1 + 1e-5


def test_linf_starts_fill_the_cube_evenly():
    start = Linf(2.0).random_start(torch.arange(100), torch.zeros(100, 3, 8, 8))
    assert start.square().mean() == pytest.approx(4 / 3, rel=0.02)


@pytest.mark.parametrize("threat", [L2(0.5), Linf(4 / 255)], ids=str)
class TestLoss:
    def test_does_not_fall_along_the_steps_on_average(self, threat):
        x, y = images(), labels()
        found = [losses(x, y).mean()]
        for steps in (1, 2, 4, 8):
            attack = Attack(steps=steps, relative_step_size=0.25, use_best=False)
            found.append(losses(pgd(NETWORK, x, y, threat, attack), y).mean())
        assert all(after > before for before, after in itertools.pairwise(found)), found

    def test_best_iterate_is_never_below_the_last_or_the_start(self, threat):
        x, y = images(), labels()
        kwargs = {"steps": 5, "relative_step_size": 1.7}  # steps that overshoot
        last = losses(pgd(NETWORK, x, y, threat, Attack(use_best=False, **kwargs)), y)
        best = losses(pgd(NETWORK, x, y, threat, Attack(**kwargs)), y)
        assert (best >= last - 1e-5).all()
        assert (best >= losses(x, y) - 1e-5).all()
        assert (best > last + 1e-4).any()

    def test_restarts_are_never_below_one_start(self, threat):
        x, y = images(), labels()
        one = losses(pgd(NETWORK, x, y, threat, Attack(steps=2, random_start=True, use_best=False), STARTS), y)
        for use_best in (False, True):
            attack = Attack(steps=2, random_start=True, restarts=4, use_best=use_best)
            worst = losses(pgd(NETWORK, x, y, threat, attack, STARTS), y)
            assert (worst >= one - 1e-5).all()
            assert (worst > one + 1e-4).any()

    def test_beats_random_perturbations_of_the_same_size(self, threat):
        x, y = images(), labels()
        noise = (x + threat.random_start(STARTS.keys(0), x)).clamp(0, 1)
        attack = Attack(steps=3)
        assert losses(pgd(NETWORK, x, y, threat, attack), y).mean() > 1.02 * losses(noise, y).mean()

    def test_an_images_perturbation_does_not_depend_on_its_batch(self, threat):
        x, y = images().double(), labels()
        network = build("resnet8_w4", 5, seed=1).double()
        attack = Attack(steps=3, random_start=True)
        together = pgd(network, x, y, threat, attack, STARTS)
        alone = pgd(network, x[4:5], y[4:5], threat, attack, Starts(7, 2, torch.tensor([4])))
        torch.testing.assert_close(alone[0], together[4], rtol=0, atol=1e-9)


class Linear(nn.Module):
    """Logits whose difference is w · image: the best perturbation is known."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1, 1, 48).view(3, 4, 4))

    def forward(self, x):
        score = (x * self.w).flatten(1).sum(1)
        return torch.stack([-score, score], 1) / 2


def test_a_linear_network_is_attacked_along_its_weights():
    """Away from the ends of the range the optimum is eps·w/‖w‖ for L2 and eps·sign(w) for Linf, away from the label."""
    x, y, network = torch.full((2, 3, 4, 4), 0.5), torch.tensor([0, 1]), Linear()
    toward = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    w = network.w.detach()
    l2 = pgd(network, x, y, L2(0.3), Attack(steps=3)) - x
    torch.testing.assert_close(l2, 0.3 * toward * w / w.norm(), rtol=1e-4, atol=1e-6)
    linf = pgd(network, x, y, Linf(0.1), Attack(steps=3)) - x
    torch.testing.assert_close(linf, 0.1 * toward * w.sign(), rtol=1e-4, atol=1e-6)


def test_the_default_step_is_the_papers():
    """One L2 step of 2·eps/3 on a linear network, before the ball is reached, is 2·eps/3 long."""
    x, y = torch.full((1, 3, 4, 4), 0.5), torch.tensor([0])
    short = pgd(Linear(), x, y, L2(0.3), Attack(steps=1, relative_step_size=2 / 3)) - x
    assert short.norm() == pytest.approx(0.2, rel=1e-4)
    counted = Counting()
    pgd(counted, x, y, L2(0.3), Attack(steps=3))
    first = counted.seen[1] - counted.seen[0]
    assert first.norm() == pytest.approx(0.2, rel=1e-4)
    assert len(counted.seen) == 4  # three gradients, and the last iterate's loss


class Counting(Linear):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return super().forward(x)


class TestNetworkAfterwards:
    def test_mode_and_gradients_are_as_before(self):
        network = build("resnet8_w4", 5).train()
        network.body.get_submodule("blocks.1").eval()
        network.head.bias.requires_grad_(False)
        modes = {name: module.training for name, module in network.named_modules()}
        pgd(network, images(4), labels(4), L2(0.5), Attack(steps=2))
        assert {name: module.training for name, module in network.named_modules()} == modes
        assert not network.head.bias.requires_grad
        assert network.head.weight.requires_grad
        assert all(parameter.grad is None for parameter in network.parameters())

    def test_also_when_the_network_fails(self):
        network = build("resnet8_w4", 5).train()
        with pytest.raises(RuntimeError):
            pgd(network, torch.rand(4, 2, 16, 16), labels(4), L2(0.5), Attack(steps=2))
        assert network.training
        assert all(parameter.requires_grad for parameter in network.parameters())

    def test_statistics_of_batchnorm_do_not_move(self):
        network = build("resnet8_w4", 5).train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        pgd(network, images(4), labels(4), L2(0.5), Attack(steps=2))
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    def test_the_attack_is_on_eval_mode(self):
        network = build("resnet8_w4", 5)
        in_train = pgd(network.train(), images(4), labels(4), L2(0.5), Attack(steps=2))
        in_eval = pgd(network.eval(), images(4), labels(4), L2(0.5), Attack(steps=2))
        assert torch.equal(in_train, in_eval)


def test_eps_0_returns_the_images_themselves():
    x = images()
    assert pgd(NETWORK, x, labels(), L2(0.0), Attack(steps=3)) is x


def test_a_random_start_without_its_numbers_is_refused():
    with pytest.raises(ValueError, match="random_start: true needs `starts`"):
        pgd(NETWORK, images(), labels(), L2(0.5), Attack(random_start=True))


def test_runs_under_autocast_and_channels_last():
    x, y = images().contiguous(memory_format=torch.channels_last), labels()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pgd(NETWORK, x, y, L2(0.5), Attack(steps=3))
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    exact = pgd(NETWORK, x, y, L2(0.5), Attack(steps=3))
    assert losses(found, y).mean() == pytest.approx(losses(exact, y).mean().item(), rel=0.02)


def test_threat_models_by_name():
    assert threat_model("l2", "0.25") == L2(0.25)
    assert threat_model("linf", "4/255") == Linf(4 / 255)


class TestRandomness:
    def test_is_splitmix64(self):
        """The reference sequence for seed 1234567 (Vigna, splitmix64.c)."""
        expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
        found = randomness.bits(1234567, torch.arange(4)).tolist()
        assert [value % 2**64 for value in found] == expected

    def test_numbers_are_uniform(self):
        found = randomness.uniform(3, torch.arange(100_000))
        assert found.min() >= 0
        assert found.max() < 1
        counts = torch.histc(found, 50, 0, 1)
        assert ((counts - 2000).square() / 2000).sum() < 95  # chi-squared with 49 degrees of freedom, p < 1e-4

    def test_neighbouring_keys_have_nothing_in_common(self):
        rows = randomness.per_image(0, randomness.AUGMENTATION, 0, torch.arange(2000), 4)
        correlation = torch.corrcoef(torch.cat([rows[:-1], rows[1:]], 1).T) - torch.eye(8)
        assert correlation.abs().max() < 0.1

    def test_every_part_of_a_key_counts(self):
        keys = {randomness.key(*parts) for parts in [(0,), (0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 0), (-1,), (2**63,)]}
        assert len(keys) == 8

    def test_an_epochs_order_is_a_permutation_of_its_own(self):
        orders = [randomness.order(seed, epoch, 500) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
        for order in orders:
            assert torch.equal(order.sort().values, torch.arange(500))
        for one, other in [(0, 1), (0, 2), (1, 2)]:
            assert (orders[one] == orders[other]).sum() < 10
        assert torch.equal(orders[0], randomness.order(0, 0, 500))

    def test_golden_numbers(self):
        """They decide every trained network: a change here makes all of them different ones."""
        assert randomness.order(0, 0, 8).tolist() == [1, 5, 3, 2, 7, 6, 4, 0]
        row = randomness.per_image(3, randomness.AUGMENTATION, 5, torch.tensor([41]), 3)[0].tolist()
        assert row == pytest.approx([0.10064666516598075, 0.44011743937940184, 0.9588007377780573], abs=1e-12)
