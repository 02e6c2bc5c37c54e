"""Schedules: learning rates, image sides and batches, by hand."""

import math

import pytest
import torch
from robust_transfer import randomness
from robust_transfer.configuration.training import Recipe
from robust_transfer.training.schedules import TrainingError, batch_sizes, learning_rate_at, side_at, steps


class TestSchedules:
    """Golden values by hand, at 4 epochs of 5 steps."""

    def rates(self, **settings):
        chosen = Recipe(epochs=4, **settings)
        return [learning_rate_at(chosen, 0.8, step, 5) for step in range(20)]

    def test_step(self):
        rates = self.rates(schedule="step", step_epochs=2, step_factor=4)
        assert rates == pytest.approx([0.8] * 10 + [0.2] * 10)

    def test_cosine(self):
        rates = self.rates(schedule="cosine")
        assert rates[0] == 0.8
        assert rates[10] == pytest.approx(0.4)
        assert rates[5] == pytest.approx(0.8 * (1 + math.cos(math.pi / 4)) / 2)
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] > 0

    def test_one_cycle(self):
        rates = self.rates(schedule="one-cycle", warmup_fraction=0.25)
        assert rates[:5] == pytest.approx([0.16, 0.32, 0.48, 0.64, 0.8])
        assert rates[5:] == pytest.approx([0.8 * (20 - step) / 15 for step in range(5, 20)])
        assert rates[-1] == pytest.approx(0.8 / 15)

    def test_one_cycle_without_warm_up_starts_at_the_peak(self):
        rates = self.rates(schedule="one-cycle", warmup_fraction=0.0)
        assert rates == pytest.approx([0.8 * (20 - step) / 20 for step in range(20)])


class TestBatches:
    @pytest.mark.parametrize(
        ("n", "batch_size", "group", "sizes"),
        [
            (20, 10, None, [10, 10]),
            (23, 10, None, [10, 10, 3]),
            (21, 10, None, [10, 10]),  # a single image has no variance
            (22, 10, None, [10, 10, 2]),
            (4, 10, None, [4]),
            (26, 10, 5, [10, 10, 5]),  # nor has a last group of one
            (27, 10, 5, [10, 10, 7]),
            (21, 10, 5, [10, 10]),
        ],
    )
    def test_sizes(self, n, batch_size, group, sizes):
        assert batch_sizes(n, batch_size, group) == sizes

    def test_a_single_image_is_refused(self):
        with pytest.raises(TrainingError, match="1 training images: BatchNorm needs at least two"):
            batch_sizes(1, 10, None)

    def test_a_different_image_is_left_out_in_every_epoch(self):
        left_out = {randomness.order(0, epoch, 21)[-1].item() for epoch in range(8)}
        assert len(left_out) > 3

    def test_steps_are_batches_in_groups_in_the_given_order(self):
        recipe = Recipe(batch_size=10, batchnorm_group=5)
        actual = steps(torch.arange(27).flip(0), recipe)
        assert [[len(group) for group in groups] for groups in actual] == [[5, 5], [5, 5], [5, 2]]
        assert torch.cat([group for groups in actual for group in groups]).tolist() == list(range(26, -1, -1))


class TestSides:
    def sides(self, input_size, **settings):
        recipe = Recipe(epochs=10, **settings)
        return [side_at(recipe, epoch, input_size) for epoch in range(10)]

    def test_without_progressive_resizing_sides_are_the_input_size(self):
        assert self.sides(224) == [224] * 10

    def test_sides_grow_in_steps_that_networks_can_halve(self):
        actual = self.sides(224, start_scale=0.57, growing_fraction=0.7)
        assert actual == [128, 128, 160, 160, 192, 192, 224, 224, 224, 224]
        assert self.sides(32, start_scale=0.5, growing_fraction=0.5) == [16, 20, 24, 24, 28, 32, 32, 32, 32, 32]
        assert all(side % 16 == 0 for side in self.sides(64, start_scale=0.3))

    def test_sides_end_at_the_input_size_even_if_it_is_no_multiple(self):
        assert self.sides(230, start_scale=0.9, growing_fraction=1.0)[-1] <= 230
        assert self.sides(230, start_scale=0.9, growing_fraction=0.9)[-1] == 230
