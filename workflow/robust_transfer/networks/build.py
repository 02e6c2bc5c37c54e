"""Networks by name: a body, the normalisation in front of it, and a linear head behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robust_transfer.architectures import (
    CIFAR,
    CIFAR_RESNETS,
    check_architecture,
    small_resnet,
    timm_name,
    wide_resnet,
)
from robust_transfer.configuration.sides import PATCHES, check_side
from robust_transfer.networks.max_pool import replace_max_pools
from robust_transfer.networks.pooling import replace_pools
from robust_transfer.networks.small_resnet import SmallResNet
from robust_transfer.networks.wide_resnet import WideResNet

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# torchvision's two networks with auxiliary heads are built without them, and initialised as torchvision trains them.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


class Normalise(nn.Module):
    """(image - mean) / std by channel, so that everything outside the network works on pixels in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images float [N, 3, H, W] in [0, 1] to the same shape, normalised."""
        return torch.addcmul(-self.mean / self.std, images, 1 / self.std)


class Network(nn.Module):
    """A classifier of images float [N, 3, H, W] in [0, 1]: `head(body(normalise(images)))`."""

    evaluating: tuple[nn.Module, ...] = ()
    """Parts that stay in eval mode when the network trains."""

    def __init__(self, architecture: str, body: nn.Module, features_n: int, classes: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.normalise = Normalise()
        self.body = body
        self.head = nn.Linear(features_n, classes)

    @property
    def classes(self) -> int:
        """Number of classes, the outputs of the head."""
        return self.head.out_features

    @property
    def parameters_n(self) -> int:
        """Number of trainable parameters, the head's included."""
        return sum(parameter.numel() for parameter in self.parameters())

    def train(self, mode: bool = True) -> Network:
        """To train mode, but for what stays in eval mode; or all to eval mode."""
        super().train(mode)
        for part in self.evaluating:
            part.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """The input of the head [N, D], for images float [N, 3, H, W] in [0, 1]."""
        features: Tensor = self.body(self.normalise(images))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, classes] of images float [N, 3, H, W] in [0, 1]; with H parallel heads [N, classes, H]."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def logits(self, images: Tensor) -> Tensor:
        """As `forward`, with the head in its own precision whatever the caller's autocast says.

        In bf16 logits are rounded to 8 bits: of random ones of 1,000 classes 2.5 % tie at the top, and 1.2 % have
        another maximum.
        """
        return in_own_precision(self.head, self.features(images))

    def replace_head(self, classes: int, *, seed: int = 0) -> None:
        """Replace the head by a new one for `classes` classes, initialised from `seed` as nn.Linear is."""
        old = self.head.weight
        self.head = fresh_head(self.head.in_features, classes, seed).to(device=old.device, dtype=old.dtype)


def in_own_precision(head: nn.Linear, features: Tensor) -> Tensor:
    """`head(features)` in the precision of the head's weights, without autocast."""
    with torch.autocast(features.device.type, enabled=False):
        logits: Tensor = head(features.to(head.weight.dtype))
    return logits


class OnlyHead(nn.Module):
    """A network with a single parallel head, as a classifier: the view that an attack has of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, K] of images float [N, 3, H, W] in [0, 1]; raises RuntimeError if there are several heads."""
        logits: Tensor = self.network(images)
        if logits.shape[-1] != 1:
            raise RuntimeError(f"{logits.shape[-1]} heads see the same images: each needs an attack of its own")
        return logits.squeeze(-1)


def fresh_head(features_n: int, classes: int, seed: int) -> nn.Linear:
    """A linear layer initialised from `seed` as nn.Linear is, on the CPU; the global random state is unchanged."""
    with _seeded(seed):
        return nn.Linear(features_n, classes)


def build(architecture: str, classes: int, *, seed: int = 0, input_size: int | None = None) -> Network:
    """A network by name, freshly initialised from `seed` on the CPU, in train mode.

    `architecture` is a small CIFAR-style ResNet (`resnet8_w16`), a Wide ResNet (`wrn28_10`), a torchvision
    classification network (`resnet18`), one of its ResNets with a stem for small images (`resnet18_cifar`),
    `wide_resnet50_4`, or where timm is installed one of its networks (`timm_resnet10t`). `input_size` matters for those
    that are built for one size, such as ViTs; None is the size of the library's own weights. The global random state is
    unchanged. Raises ValueError, naming a near match and what exists, for any other name, and for a size that is no
    multiple of a network's patches.
    """
    check_architecture(architecture)
    with _seeded(seed):
        if small := small_resnet(architecture):
            body: nn.Module = SmallResNet(*small)
            features_n = 4 * small[1]
        elif wide := wide_resnet(architecture):
            depth, width, swish = wide
            body, features_n = WideResNet(depth, width, swish=swish), 64 * width
        elif name := timm_name(architecture):
            body, features_n = _timm(name, input_size)
        else:
            body = _torchvision(architecture, input_size)
            replace_pools(body)
            replace_max_pools(body)
            features_n = _cut_head(body)
        return Network(architecture, body, features_n, classes)


def _torchvision(architecture: str, input_size: int | None) -> nn.Module:
    import torchvision.models  # takes 5 s of CPU time, so only where one of its networks is built

    if architecture == "wide_resnet50_4":  # as in the paper's code: WRN-50-2 has width_per_group 128
        resnet: nn.Module = torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [3, 4, 6, 3], width_per_group=256
        )
        return resnet
    if architecture in CIFAR_RESNETS:
        return with_cifar_stem(torchvision.models.get_model(architecture.removesuffix(CIFAR), weights=None))
    arguments = _ARGUMENTS.get(architecture, {})
    if architecture in PATCHES and input_size:
        check_side(architecture, input_size)
        arguments = {"image_size": input_size}
    network: nn.Module = torchvision.models.get_model(architecture, weights=None, **arguments)
    return network


def with_cifar_stem(resnet: Any) -> nn.Module:
    """A ResNet of torchvision with the stem that is usual at 32 pixels, where ImageNet's would leave a map of 8 × 8.

    A 3×3 convolution at stride 1 and no pooling: the network of the library robustness and of others for CIFAR-10, with
    11.2 million parameters as `resnet18_cifar`.
    """
    width = resnet.conv1.out_channels
    resnet.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(resnet.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's others
    resnet.maxpool = nn.Identity()
    network: nn.Module = resnet
    return network


def _timm(name: str, input_size: int | None) -> tuple[nn.Module, int]:
    """A network of timm without its head, and the dimension of its features."""
    import timm

    fixed = getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False)
    size: dict[str, Any] = {"img_size": input_size} if fixed and input_size else {}
    try:
        body: Any = timm.create_model(name, pretrained=False, num_classes=0, **size)
    except AssertionError as error:  # XCiTs, of a size that is no multiple of their patches
        raise ValueError(f"timm_{name} cannot take images of {input_size} px: {error}; change input_size") from error
    patch = getattr(getattr(body, "patch_embed", None), "patch_size", None)
    if size and isinstance(patch, tuple) and any(input_size % side for side in patch if input_size):
        raise ValueError(
            f"timm_{name} cannot take images of {input_size} px: it cuts them into patches of {patch[0]} px, and would "
            "leave out what remains; set input_size to a multiple of that"
        )
    return body, int(body.head_hidden_size)


def _cut_head(network: nn.Module) -> int:
    """Replace the last linear layer, the head, by an identity; returns its input dimension.

    `fc` in ResNets and ShuffleNets, `classifier`, `classifier.1` or `classifier.6` elsewhere: in all of
    them, no linear layer is registered after it.
    """
    path, head = [(path, layer) for path, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1]
    network.set_submodule(path, nn.Identity())
    return head.in_features


class _seeded:  # noqa: N801
    """Seeds the global CPU random state within a block, and restores it afterwards."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        self._before = torch.get_rng_state()
        torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self._before)
