"""Images found by gradients: what passes the last ReLU, and that searches find what they search for."""

import pytest
import torch
import torch.nn.functional as F
from robust_transfer.gallery.gradients import loss_gradients, low_frequency_share, noise_share, shown
from robust_transfer.gallery.search import grey_noise, rebuilt, relative_distance, visualised
from robust_transfer.networks.build import build
from robust_transfer.networks.last_relu import passing_last_relu
from torch import nn

SIDE = 16


def once(x):
    return nn.ReLU()(x)


def twice_in_place(x):
    relu = nn.ReLU(inplace=True)
    return relu(relu(x * 1) - 1)


def functional(x):
    return F.relu(torch.relu(x * 1) - 1, inplace=True)


@pytest.mark.parametrize(
    ("function", "gradient"), [(once, [1, 1, 1]), (twice_in_place, [0, 1, 1]), (functional, [0, 1, 1])]
)
def test_the_gradient_passes_the_last_relu_alone_and_values_stay(function, gradient):
    x = torch.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    passing = passing_last_relu(function, x)
    found = passing(x)
    assert torch.equal(found, function(x))
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == gradient


def test_a_function_without_a_relu_keeps_its_gradient():
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    passing_last_relu(torch.square, x)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-2, 4]


@pytest.fixture(scope="module")
def network():
    return build("resnet8_w4", 5, seed=1).eval()


def images(n=4, seed=0):
    return torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def test_a_search_comes_nearer_to_the_representation_within_the_range_of_pixels(network):
    wanted, start = images(), images(seed=1)
    found = rebuilt(network, wanted, start, steps=30, step_size=0.2)
    before, after = (relative_distance(network.features(one), network.features(wanted)) for one in (start, found))
    assert (after < before / 2).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.linalg.vector_norm(found - start, dim=(1, 2, 3)).max() <= 30 * 0.2 + 1e-4
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_search_for_one_image_does_not_depend_on_the_others(network):
    wanted, start = images(), images(seed=1)
    together = rebuilt(network, wanted, start, steps=5, step_size=0.2)
    alone = rebuilt(network, wanted[2:3], start[2:3], steps=5, step_size=0.2)
    torch.testing.assert_close(together[2:3], alone, atol=1e-4, rtol=0)


def test_visualisations_raise_the_logits_of_their_classes(network):
    classes, start = torch.tensor([0, 3]), grey_noise(SIDE, 0).repeat(2, 1, 1, 1)
    found = visualised(network, classes, start, steps=20, step_size=0.2)
    before, after = (network(one).gather(1, classes[:, None]) for one in (start, found))
    assert (after > before + 0.05).all()


def test_grey_noise_is_grey_and_the_same_for_one_seed():
    noise = grey_noise(64, 3)
    assert torch.equal(noise, grey_noise(64, 3))
    assert not torch.equal(noise, grey_noise(64, 4))
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.002)
    assert float(noise.std()) == pytest.approx(0.05, abs=0.002)


def test_the_share_of_low_frequencies_of_known_gradients():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    waves = [
        torch.ones_like(x),
        torch.cos(2 * torch.pi * 3 * x / 24),
        torch.cos(2 * torch.pi * 4 * x / 24),
        (-1) ** (x + y),
    ]
    known = torch.stack(waves)[:, None].expand(-1, 3, -1, -1)
    assert low_frequency_share(known).tolist() == pytest.approx([1, 1, 0, 0], abs=1e-9)
    mixed = known[1:2] + known[3:4]  # energies 1/2 and 1
    assert low_frequency_share(mixed).item() == pytest.approx(1 / 3, abs=1e-6)
    noise = torch.randn(200, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert low_frequency_share(noise).mean().item() == pytest.approx(noise_share(24), abs=0.002)
    assert torch.isnan(low_frequency_share(torch.zeros(1, 3, 24, 24))).all()


def test_gradients_are_those_of_each_image_and_shown_around_grey(network):
    pictures, labels = images(), torch.tensor([0, 1, 2, 3])
    found = loss_gradients(network, pictures, labels)
    step = 1e-3 * found / torch.linalg.vector_norm(found, dim=(1, 2, 3), keepdim=True)
    with torch.no_grad():
        rise = [F.cross_entropy(network(one), labels, reduction="none") for one in (pictures + step, pictures - step)]
    slopes = torch.linalg.vector_norm(found, dim=(1, 2, 3))
    torch.testing.assert_close((rise[0] - rise[1]) / 2e-3, slopes, rtol=0.05, atol=1e-3)
    grey = shown(torch.zeros(1, 3, 8, 8))
    assert grey.unique().tolist() == [0.5]
    assert shown(found).amin() >= 0
