"""Which part of a network is trained, and what stays in eval mode."""

import pytest
import torch
from robust_transfer.configuration.transfer import LastBlocks
from robust_transfer.networks.build import build
from robust_transfer.networks.freezing import blocks_of, check_last_blocks, freeze
from robust_transfer.networks.layers import outline
from torch import nn


def trained(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("architecture", "blocks"),
    [("resnet8_w4", 3), ("resnet18", 8), ("vit_b_16", 12), ("convnext_tiny", 8), ("regnet_y_400mf", 4), ("vgg11", 8)],
)
def test_blocks_are_the_architectures(architecture: str, blocks: int) -> None:
    assert len(blocks_of(outline(architecture, 224).body)) == blocks


@pytest.mark.parametrize("architecture", ["resnet8_w4", "resnet18", "vit_b_16"])
def test_the_last_blocks_and_what_follows_them_are_trained(architecture: str) -> None:
    network = outline(architecture, 224)
    freeze(network, LastBlocks(last_blocks=1), "train")
    last = {f"body.{name}" for name, _ in network.body.named_parameters()}
    block = blocks_of(network.body)[-1]
    inside = {id(parameter) for parameter in block.parameters()}
    of_block = {name for name, parameter in network.named_parameters() if id(parameter) in inside}
    after = {"body.encoder.ln.weight", "body.encoder.ln.bias"} if architecture == "vit_b_16" else set()
    assert trained(network) == of_block | after | {"head.weight", "head.bias"}
    assert of_block < last


def test_frozen_parts_stay_in_eval_mode_and_trained_ones_follow() -> None:
    network = build("resnet8_w4", 3)
    freeze(network, LastBlocks(last_blocks=1), "train")
    for _ in range(2):  # whatever mode it was in before
        network.train()
        assert not network.body.get_submodule("stem").training
        assert [block.training for block in blocks_of(network.body)] == [False, False, True]
        assert not any(module.training for module in blocks_of(network.body)[1].modules())
        network.eval()
        assert not any(module.training for module in network.modules())


def test_head_alone_freezes_the_whole_body() -> None:
    network = build("resnet8_w4", 3)
    freeze(network, "head", "train")
    network.train()
    assert trained(network) == {"head.weight", "head.bias"}
    assert not any(module.training for module in network.body.modules())


def test_frozen_batchnorm_keeps_its_statistics_and_learns_scale_and_shift() -> None:
    network = build("resnet8_w4", 3)
    every = trained(network)
    freeze(network, "all", "frozen")
    network.train()
    assert trained(network) == every
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    network(torch.rand(4, 3, 16, 16))
    after = [norm.running_mean for norm in norms if norm.running_mean is not None]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert len(before) == 9


def test_the_default_leaves_a_network_as_it_was() -> None:
    network = build("resnet8_w4", 3)
    every = trained(network)
    freeze(network, "all", "train")
    assert trained(network.train()) == every
    assert all(module.training for module in network.modules())


def test_more_blocks_than_there_are_are_refused() -> None:
    check_last_blocks("resnet8_w4", 32, 3)
    with pytest.raises(ValueError, match=r"last_blocks: 4}: resnet8_w4 has 3 blocks; write a smaller number"):
        check_last_blocks("resnet8_w4", 32, 4)
