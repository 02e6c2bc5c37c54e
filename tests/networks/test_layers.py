"""Layers by name: which there are, which axes are averaged over, and what is refused before any job starts."""

import pytest
import torch
from robust_transfer import cli
from robust_transfer.configuration.load import ConfigurationError, load
from robust_transfer.dag.grid import plan
from robust_transfer.dag.wiring import Wiring
from robust_transfer.networks.build import Network, build
from robust_transfer.networks.layers import LayerError, activations, layer_named, layers, outline
from torch import nn

# An inner layer of every family: its name, the side of the images, its channels.
CONVOLUTIONAL = [
    ("resnet8_w4", "blocks.1", 16, 8),
    ("resnet18", "layer2.0", 32, 128),
    ("resnext50_32x4d", "layer1.2.bn3", 32, 256),
    ("densenet121", "features.denseblock1", 32, 256),
    ("vgg11", "features.10", 32, 256),
    ("mobilenet_v2", "features.3", 32, 24),
    ("mnasnet0_5", "layers.8", 32, 16),
    ("shufflenet_v2_x0_5", "stage2", 32, 48),
    ("timm_test_resnet", "layer2", 32, 48),
]


def images(n=2, side=32):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def network_of(name, side):
    if name.startswith("timm_"):
        pytest.importorskip("timm", reason="not installed: make setup EXTRAS=timm")
    return build(name, 3, input_size=side).eval()


def hooked(network, name, pixels):
    """A layer's own output, as its last use leaves it."""
    seen = []
    hook = network.body.get_submodule(name).register_forward_hook(lambda *given: seen.append(given[2].detach().clone()))
    with torch.no_grad():
        network.features(pixels)
    hook.remove()
    return seen[-1]


def read(network, name, pixels):
    with torch.no_grad():
        return activations(network, layer_named(network, name, pixels.shape[-1]))(pixels)


@pytest.mark.parametrize(("name", "layer", "side", "channels"), CONVOLUTIONAL)
def test_a_map_is_averaged_over_its_positions(name, layer, side, channels):
    network = network_of(name, side)
    output = hooked(network, layer, images(side=side))
    assert output.shape[1] == channels
    torch.testing.assert_close(read(network, layer, images(side=side)), output.mean((2, 3)))
    known = layers(outline(name, side), side)
    assert known == layers(network, side)  # with numbers and without
    assert known[layer].dimension == channels


def test_in_place_changes_of_an_output_do_not_matter():
    """A residual block adds its shortcut to the output of its last BatchNorm, in place."""
    network = network_of("resnet18", 32)
    torch.testing.assert_close(
        read(network, "layer1.0.bn2", images()), hooked(network, "layer1.0.bn2", images()).mean((2, 3))
    )


def test_the_last_use_of_a_layer_counts():
    network = network_of("resnet18", 32)
    assert layer_named(network, "layer1.0.relu", 32).calls == 2
    torch.testing.assert_close(read(network, "layer1.0.relu", images()), read(network, "layer1.0", images()))


def test_the_last_layer_is_the_input_of_the_head():
    network = network_of("resnet18", 32)
    with torch.no_grad():
        torch.testing.assert_close(read(network, "layer4", images()), activations(network, None)(images()))


def test_channels_may_come_last_and_tokens_are_averaged():
    torchvision = pytest.importorskip("torchvision.models")
    swin = torchvision.SwinTransformer([4, 4], 12, [1, 1], [2, 2], [4, 4]).eval()
    swin = Network("swin", swin, 24, 3).eval()
    output = hooked(swin, "features.1", images())
    assert output.shape == (2, 8, 8, 12)
    torch.testing.assert_close(read(swin, "features.1", images()), output.mean((1, 2)))
    vit = Network("vit", torchvision.VisionTransformer(32, 8, 1, 2, 12, 24), 12, 3).eval()
    output = hooked(vit, "encoder.layers", images())
    assert output.shape == (2, 17, 12)  # 16 patches and the class token
    torch.testing.assert_close(read(vit, "encoder.layers", images()), output.mean(1))


@pytest.mark.parametrize("last", [False, True])
def test_a_larger_image_distinguishes_channels_from_positions(last):
    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.order = nn.Conv2d(3, 8, 4, stride=4), nn.Identity()

        def forward(self, x):
            x = self.convolution(x)
            return self.order(x.permute(0, 2, 3, 1) if last else x).mean((1, 2))

    network = Network("own", Body(), 8, 3).eval()
    assert hooked(network, "order", images()).shape == (2, 8, 8, 8)
    assert layer_named(network, "order", 32).places == ((1, 2) if last else (2, 3))


def test_outputs_with_ambiguous_axes_are_no_layers():
    """Of a network that takes one size of images alone."""

    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.linear = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8 * 8 * 8, 5)

        def forward(self, x):
            return self.linear(self.convolution(x).flatten(1))

    network = Network("own", Body(), 5, 3).eval()
    assert list(layers(network, 32)) == ["linear"]
    with pytest.raises(LayerError, match=r"convolution: own at 32 px has that, but no output"):
        layer_named(network, "convolution", 32)


def test_regnets_have_no_outline_without_numbers_and_are_built():
    assert layers(outline("regnet_y_400mf", 32), 32)["trunk_output.block1"].dimension == 48


def test_the_command_lists_names_and_dimensions(capsys):
    assert cli.main(["layers", "resnet18", "--input-size", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["layer3", "256"] in [line.split() for line in lines]
    assert cli.main(["layers", "inception_v3", "--input-size", "32"]) == 1


class TestBeforeAnyJob:
    def wiring(self, tmp_path, **settings):
        where = {"store": str(tmp_path / "store"), "results": str(tmp_path / "results")}
        return Wiring(plan(load([], {**where, **settings})))

    def test_a_wrong_layer_is_refused_with_its_architecture_and_near_names(self, tmp_path):
        with pytest.raises(
            ConfigurationError,
            match=r"features\.layer = blocks\.9: resnet8_w16 at 24 px has no such layer; did you mean",
        ):
            self.wiring(tmp_path, features={"layer": "blocks.9"}).prepare()
        assert not (tmp_path / "store").exists()

    def test_a_right_one_passes(self, tmp_path):
        self.wiring(tmp_path, features={"layer": "blocks.1"}).prepare()
        assert (tmp_path / "store" / "features").is_dir()

    def test_images_that_a_network_of_timms_cannot_take_are_refused(self, tmp_path):
        pytest.importorskip("timm", reason="not installed: make setup EXTRAS=timm")
        grid = [{"architectures": ["timm_efficientformer_l1"], "eps": [0], "modes": ["fixed-feature"]}]
        wiring = self.wiring(tmp_path, grid=grid, figures={"widths": []})
        with pytest.raises(ConfigurationError, match=r"timm_efficientformer_l1 cannot take images of 24 px: "):
            wiring.prepare()
