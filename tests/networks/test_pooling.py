"""Pooling with a deterministic gradient, and whether anything else needs an operator that has none on CUDA."""

import contextlib

import pytest
import torch
from robust_transfer.architectures import CATALOGUE
from robust_transfer.attacks import L2, Linf
from robust_transfer.configuration.training import Attack, Recipe
from robust_transfer.loading.augmentation import Augmenter, Colours
from robust_transfer.machine.distributed import ALONE
from robust_transfer.networks import pooling
from robust_transfer.networks.build import build
from robust_transfer.networks.folding import Folded
from robust_transfer.networks.pooling import AdaptiveAvgPool2d, is_refused
from robust_transfer.training.loop import Adversary, Training
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

REFUSED = """
    adaptive_avg_pool2d_backward adaptive_avg_pool3d_backward adaptive_max_pool2d_backward avg_pool3d_backward
    bincount ctc_loss_backward embedding_bag fractional_max_pool2d_backward grid_sampler_2d_backward histc
    index_reduce max_unpool2d median nll_loss2d_forward put reflection_pad2d_backward scatter_reduce
    upsample_bicubic2d_aa_backward upsample_bicubic2d_backward upsample_bilinear2d_aa_backward
    upsample_bilinear2d_backward upsample_linear1d_backward
"""
"""What `torch.use_deterministic_algorithms` of torch 2.15 refuses on CUDA, by its documentation."""
FAMILIES = """
    alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
    mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet18_cifar resnet50 resnext50_32x4d
    shufflenet_v2_x0_5 swin_t swin_v2_t vgg11 vgg16_bn vit_b_32 wide_resnet50_2
"""
"""One network of each kind that torchvision builds."""


@pytest.fixture
def as_on_cuda(monkeypatch):
    """The gradient that CUDA gets under deterministic algorithms, on the CPU."""
    monkeypatch.setattr(pooling, "is_refused", lambda x: True)


class Operators(TorchDispatchMode):
    """Notes the names of all operators that run, backward passes included."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func._schema.name.partition("::")[2].strip("_"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("outputs", [6, 7, (7, 5)])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 6, 7, 8, 10, 13, 14, 16])
def test_values_and_gradients_are_torchs(outputs, side, as_on_cuda):
    """At maps of 1 to 16 pixels, which VGGs have at 32 to 512 px, with windows that overlap or repeat a pixel."""
    x = torch.randn(2, 3, side, side + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(side))
    weights = torch.randn_like(nn.functional.adaptive_avg_pool2d(x, outputs))
    found = []
    for pool in (AdaptiveAvgPool2d(outputs), nn.AdaptiveAvgPool2d(outputs)):
        images = x.clone().requires_grad_()
        y = pool(images)
        (y * weights).sum().backward()
        found.append((y, images.grad))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-12, atol=1e-14)


def test_in_bf16_the_means_are_not_rounded(as_on_cuda):
    x = torch.randn(4, 8, 9, 9, dtype=torch.bfloat16).requires_grad_()
    weights = torch.randn(4, 8, 7, 7)
    (AdaptiveAvgPool2d(7)(x) * weights).sum().backward()
    exact = x.detach().double().requires_grad_()
    (nn.AdaptiveAvgPool2d(7)(exact) * weights.bfloat16().double()).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=2**-8, atol=2**-10)


def test_elsewhere_it_is_torchs_own():
    x = torch.zeros(1, 1, 4, 4)
    assert not is_refused(x)
    with Operators() as operators:
        AdaptiveAvgPool2d(3)(x.requires_grad_()).sum().backward()
    assert "adaptive_avg_pool2d_backward" in operators.seen  # so that this finds what it looks for


def test_every_kind_of_network_is_looked_at():
    def kind(name):
        return "".join(letter for letter in name if not letter.isdigit()).split("_")[0]

    assert {kind(name) for name in CATALOGUE} == {kind(name) for name in FAMILIES.split()}


QUICK = ("alexnet", "resnet18", "swin_t", "vgg16_bn")
"""Of these a test runs each time, of the others for its length among those of faults."""


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.faults) for name in FAMILIES.split()]
)
def test_no_network_needs_an_operator_that_deterministic_algorithms_refuse(name, as_on_cuda):
    side = 224 if name in ("maxvit_t", "vit_b_32", "swin_t", "swin_v2_t") else 96 if name == "inception_v3" else 64
    device = "cpu" if name.startswith("regnet") else "meta"  # RegNets compute widths by tensors, which need values
    with torch.device(device) if device == "meta" else contextlib.nullcontext():
        network = build(name, 3).train()
    images = torch.zeros(2, 3, side, side, device=device, requires_grad=True)
    with Operators() as operators:
        losses = nn.functional.cross_entropy(network(images), torch.zeros(2, dtype=torch.int64, device=device))
        losses.backward()
    assert "convolution_backward" in operators.seen
    assert not operators.seen & set(REFUSED.split())


@pytest.mark.parametrize("threat", [L2(0.5), Linf(0.1)])
def test_no_step_of_training_needs_one(threat):
    """From pixels to weights: augmentation, a random start, the attack, the loss, the optimiser."""
    network, labels = build("resnet8_w4", 3).train(), torch.tensor([0, 2])
    recipe = Recipe(augmentation="square-resized-crop-flip", batch_size=2, colour_jitter=0.1, lighting=0.1)
    colours = Colours(recipe, 0)
    augmenter = Augmenter(torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8), recipe.augmentation, 16, 0)
    training = Training(network, recipe, 0, ALONE, 0.1, torch.device("cpu"))
    adversary = Adversary(network, threat, Attack(steps=2, random_start=True), 0, 16)
    with Operators() as operators:
        numbers = torch.arange(2)
        images = colours.changed(augmenter.batch(numbers, 0, size=16), numbers, 0)
        perturbed = adversary(images, labels, 0, numbers)
        training.learn(iter([(perturbed, labels)]), images=2, groups=1, rate=0.1)
    assert "nll_loss_backward" in operators.seen
    assert not operators.seen & set(REFUSED.split())


def test_the_folded_network_keeps_it(as_on_cuda):
    network = build("vgg11_bn", 3).eval()
    folded = Folded(network)
    assert not [module for module in folded.body.modules() if isinstance(module, nn.BatchNorm2d)]
    images = torch.rand(1, 3, 64, 64).requires_grad_()
    with Operators() as operators:
        folded(images).sum().backward()
    assert not operators.seen & set(REFUSED.split())
