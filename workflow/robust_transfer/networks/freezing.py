"""Which part of a network is trained: all of it, its last blocks, or its head; and BatchNorm whose statistics stay."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from robust_transfer.configuration.transfer import FinetuningBatchNorm, LastBlocks, Trainable
from robust_transfer.networks.build import Network
from robust_transfer.networks.layers import outline

STAGES_OF_RESNETS = ("layer1", "layer2", "layer3", "layer4")
SEQUENCES = ("blocks", "encoder.layers", "stages", "layers", "features", "trunk_output")
"""Where networks have their blocks: small ResNets and timm's ViTs, torchvision's ViTs, timm's ConvNeXts, Swins and
MNASNets, torchvision's other networks, RegNets."""

_Norm = nn.modules.batchnorm._BatchNorm


def freeze(network: Network, trainable: Trainable, batchnorm: FinetuningBatchNorm) -> None:
    """Leave gradients to what is to be trained alone, and keep what is frozen in eval mode.

    With `batchnorm: frozen` every BatchNorm stays in eval mode, so that its running statistics do not change; scale and
    shift are trained where their layer is. Raises ValueError for more blocks than there are.
    """
    if trainable == "head":
        network.body.requires_grad_(False)
    elif isinstance(trainable, LastBlocks):
        first = next(first_of_last(network, trainable.last_blocks).parameters())
        for parameter in network.body.parameters():  # in the order of layers
            if parameter is first:
                break
            parameter.requires_grad_(False)
    norms = [module for module in network.body.modules() if isinstance(module, _Norm) and batchnorm == "frozen"]
    network.evaluating = (*_frozen(network.body), *norms)
    network.train(network.training)


def blocks_of(body: nn.Module) -> list[nn.Module]:
    """The blocks that a network's body is a sequence of; where it has none, its layers. Those without parameters are
    left out."""
    parts = dict(body.named_modules())
    if all(name in parts for name in STAGES_OF_RESNETS):
        found = [block for name in STAGES_OF_RESNETS for block in parts[name].children()]
    else:
        sequence = next((parts[name] for name in SEQUENCES if name in parts), body)
        found = list(sequence.children())
    return [block for block in found if next(block.parameters(), None) is not None]


def check_last_blocks(architecture: str, input_size: int, wanted: int) -> None:
    """Raise ValueError if a network, which is built without memory for weights, has fewer blocks than are wanted."""
    first_of_last(outline(architecture, input_size), wanted)


def first_of_last(network: Network, wanted: int) -> nn.Module:
    """The first of that many last blocks. Raises ValueError if there are fewer."""
    blocks = blocks_of(network.body)
    if wanted > len(blocks):
        raise ValueError(
            f"finetuning.trainable = {{last_blocks: {wanted}}}: {network.architecture} has {len(blocks)} blocks; "
            "write a smaller number, or trainable: all"
        )
    return blocks[-wanted]


def _frozen(module: nn.Module) -> Iterator[nn.Module]:
    """The largest parts whose parameters are all frozen."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        yield module
        return
    for child in module.children():
        yield from _frozen(child)
