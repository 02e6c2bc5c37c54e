"""AdamW against torch's own."""

import pytest
import torch
from robust_transfer.training.adamw import AdamW
from torch import nn


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(4, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last)
    return [nn.Parameter(maps), nn.Parameter(torch.randn(7, generator=generator))]


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.randn(parameter.shape, generator=generator) for parameter in parameters()]


def test_it_makes_the_same_bits_as_torch() -> None:
    ours, theirs = parameters(), parameters()
    optimiser = AdamW(ours, betas=(0.8, 0.95), weight_decay=0.1)
    reference = torch.optim.AdamW(theirs, lr=1.0, betas=(0.8, 0.95), weight_decay=0.1, fused=True)
    for step in range(5):
        rate = 0.1 / (step + 1)
        reference.param_groups[0]["lr"] = rate
        for of in (ours, theirs):
            for parameter, gradient in zip(of, gradients(step), strict=True):
                parameter.grad = gradient
        optimiser.step(rate)
        reference.step()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert not torch.equal(ours[1], parameters()[1])


def test_its_tensors_are_all_of_its_state() -> None:
    """Taken over in the middle, they go on to the same bits."""
    whole, halves = parameters(), parameters()
    first, second = (AdamW(of, betas=(0.9, 0.999), weight_decay=0.01) for of in (whole, halves))
    for step in range(6):
        if step == 3:
            kept = {name: tensor.clone() for name, tensor in second.tensors().items()}
            second = AdamW(halves, betas=(0.9, 0.999), weight_decay=0.01)
            for name, tensor in second.tensors().items():
                tensor.copy_(kept[name])
        for of, optimiser in ((whole, first), (halves, second)):
            for parameter, gradient in zip(of, gradients(step), strict=True):
                parameter.grad = gradient
            optimiser.step(0.1)
    assert all(torch.equal(one, other) for one, other in zip(whole, halves, strict=True))


def test_frozen_parameters_are_left_alone_and_a_missing_gradient_is_an_error() -> None:
    both = parameters()
    both[0].requires_grad_(False)
    optimiser = AdamW(both, betas=(0.9, 0.999), weight_decay=0.1)
    with pytest.raises(RuntimeError, match="1 of 1 parameters have no gradient"):
        optimiser.step(0.1)
    both[1].grad = gradients(0)[1]
    optimiser.step(0.1)
    assert torch.equal(both[0], parameters()[0])
