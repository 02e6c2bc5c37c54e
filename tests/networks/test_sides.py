"""Which sides of images networks take: the table that planning reads, held against the networks themselves."""

import itertools

import pytest
import torch
from robust_transfer.architectures import CATALOGUE
from robust_transfer.configuration.load import ConfigurationError, load
from robust_transfer.configuration.sides import PATCHES, SIDES, check_side
from robust_transfer.configuration.training import Recipe
from robust_transfer.networks.layers import outline
from robust_transfer.training.schedules import side_at

SMALLEST = 16  # what a configuration may state


def takes(architecture: str, side: int) -> bool:
    try:
        network = outline(architecture, side if architecture in PATCHES else 224)
        with torch.no_grad():
            network(torch.zeros(2, 3, side, side, device=network.head.weight.device))
    except (RuntimeError, ValueError, AssertionError):
        return False
    return True


def in_table(architecture: str, side: int) -> bool:
    try:
        check_side(architecture, side)
    except ValueError:
        return False
    return True


def sides(architecture: str) -> set[int]:
    """Those at which the table changes its mind, or none, and the ordinary ones."""
    found = {SMALLEST, 32, 224}
    for family, (least, most) in SIDES.items():
        if architecture.startswith(family):
            found |= {least - 1, least, *([most, most + 1] if most else [])}
    if patch := PATCHES.get(architecture):
        found |= {3 * patch, 3 * patch + 1}
    return found


FEW = (
    *("alexnet", "convnext_tiny", "densenet121", "inception_v3", "maxvit_t", "vgg11", "vgg11_bn", "vit_b_32"),
    *("resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "swin_t", "mnasnet0_5", "googlenet", "resnet8_w4"),
)


@pytest.mark.parametrize("architecture", FEW)
def test_the_table_says_what_networks_do(architecture: str) -> None:
    pytest.importorskip("torchvision")
    for side in sides(architecture):
        assert takes(architecture, side) == in_table(architecture, side), side


@pytest.mark.faults
@pytest.mark.parametrize("architecture", sorted({*CATALOGUE} - {*FEW}))
def test_the_table_says_what_all_networks_do(architecture: str) -> None:
    pytest.importorskip("torchvision")
    for side in sides(architecture):
        assert takes(architecture, side) == in_table(architecture, side), side


def test_every_family_has_networks() -> None:
    for family in SIDES:
        assert any(name.startswith(family) for name in CATALOGUE)


def grid(*architectures: str, **changes: object) -> dict[str, object]:
    parts = [{"architectures": ["resnet8_w4"], "eps": [0]}, {"architectures": [*architectures], "eps": [0]}]
    return {"grid": parts, "figures": {"widths": [], "fixed_eps": None}, **changes}


IMPORTED = {"weights": {"mine": {"kind": "torchvision"}}, "backbones": "mine"}


@pytest.mark.parametrize("mode", ["fixed-feature", "full-network"])
@pytest.mark.parametrize("imported", [{}, IMPORTED], ids=["trained", "imported"])
@pytest.mark.parametrize(
    ("architecture", "side", "says"),
    [
        ("alexnet", 32, "alexnet takes images of at least 63 px, and not of 32"),
        ("vit_b_16", 100, "vit_b_16 cuts images into patches of 16 px, and 100 is no multiple of that: take 96 or 112"),
        ("vit_b_32", 24, "vit_b_32 cuts images into patches of 32 px, and 24 is no multiple of that: take 32"),
        ("maxvit_t", 256, "maxvit_t takes images of 221 to 224 px, and not of 256"),
        ("densenet201", 24, "densenet201 takes images of at least 29 px, and not of 24"),
    ],
)
def test_a_network_that_cannot_take_the_input_is_refused_when_the_configuration_is_read(
    architecture: str, side: int, says: str, imported: dict[str, object], mode: str
) -> None:
    overlay = grid(architecture, input_size=side, **imported)
    overlay["grid"] = [{"architectures": ["resnet18", architecture], "eps": [0], "modes": [mode]}]
    with pytest.raises(ConfigurationError) as error:
        load([], overlay)
    assert f"grid[0].architectures[1] = {architecture}: {says}" in str(error.value)


def test_the_patches_are_those_of_torchvisions_vits() -> None:
    for architecture in (name for name in CATALOGUE if name.startswith("vit_")):
        assert outline(architecture, 224).body.patch_size == PATCHES[architecture]


def test_a_vit_takes_any_multiple_of_its_patches_and_no_other_side_than_it_was_built_for() -> None:
    assert load([], grid("vit_b_16", input_size=96)).input_size == 96
    growing = {"training": {"start_scale": 0.5}}
    with pytest.raises(ConfigurationError, match=r"vit_b_16 is built for images of 96 px, .* of 48, .*start_scale: 1"):
        load([], grid("vit_b_16", input_size=96, pretraining=growing))


def test_progressive_resizing_starts_with_images_that_the_network_takes() -> None:
    growing = {"training": {"start_scale": 0.5}}
    with pytest.raises(ConfigurationError, match=r"architectures\[0\] = alexnet: .* not of 48, .*start_scale: 1"):
        load([], grid("alexnet", input_size=96, pretraining=growing))
    assert load([], grid("alexnet", input_size=128, pretraining=growing)).input_size == 128
    assert load([], grid("alexnet", input_size=96, pretraining=growing) | {"grid": [
        {"architectures": ["alexnet"], "eps": [0]}]} | IMPORTED).input_size == 96  # fmt: skip


def test_the_first_side_is_that_of_training() -> None:
    for scale, size in itertools.product((0.1, 0.33, 0.5, 0.57, 0.9, 1.0), (16, 24, 32, 63, 64, 96, 127, 128, 224)):
        recipe = Recipe(start_scale=scale)
        assert recipe.first_side(size) == side_at(recipe, 0, size)
