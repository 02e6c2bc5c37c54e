"""Augmentation: each kind against its definition, against Pillow and against torchvision."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from robust_transfer import randomness
from robust_transfer.configuration.training import Recipe
from robust_transfer.loading.augmentation import (
    COMPONENTS,
    CROP_NUMBERS,
    DEVIATIONS,
    ORDERS,
    TRIES,
    Augmenter,
    Colours,
    crop_box,
    jittered,
    random_crop,
    with_lighting,
)
from support.prepared_datasets import pixels as picture
from support.prepared_datasets import squares

SIDE = 16


class TestSquares:
    @pytest.mark.parametrize("kind", ["none", "flip", "crop-flip", "square-resized-crop-flip"])
    def test_an_image_does_not_depend_on_its_batch(self, kind):
        pixels, _ = squares(20, 2 * SIDE if "resized" in kind else SIDE)
        augmenter = Augmenter(pixels, kind, SIDE, seed=3)
        together = augmenter.batch(torch.arange(20), epoch=1)
        assert together.shape == (20, 3, SIDE, SIDE)
        assert together.dtype == torch.float32
        assert together.is_contiguous(memory_format=torch.channels_last)
        assert 0 <= together.min() < together.max() <= 1
        some = torch.tensor([13, 2, 7])
        torch.testing.assert_close(augmenter.batch(some, epoch=1), together[some], rtol=0, atol=1e-6)
        if kind != "none":
            assert not torch.equal(augmenter.batch(some, epoch=2), together[some])
            assert not torch.equal(Augmenter(pixels, kind, SIDE, seed=4).batch(some, epoch=1), together[some])

    def test_none_changes_nothing(self):
        pixels, _ = squares(4)
        actual = Augmenter(pixels, "none", SIDE, 0).batch(torch.arange(4), 0)
        assert torch.equal((actual * 255).round().to(torch.uint8), pixels.permute(0, 3, 1, 2))
        assert actual.is_contiguous(memory_format=torch.channels_last)

    def test_flip_mirrors_half_of_the_images(self):
        pixels, _ = squares(200)
        plain = pixels.permute(0, 3, 1, 2) / 255
        actual = Augmenter(pixels, "flip", SIDE, 0).batch(torch.arange(200), 0)
        kept, turned = (actual == plain).all((1, 2, 3)), (actual == plain.flip(3)).all((1, 2, 3))
        assert (kept | turned).all()
        assert 75 < turned.sum() < 125

    def test_crops_are_windows_of_the_padded_image_at_every_offset(self):
        pixels, _ = squares(1)
        pixels = pixels.expand(400, -1, -1, -1)
        actual = Augmenter(pixels, "crop-flip", SIDE, 0).batch(torch.arange(400), 0)
        padded = F.pad(pixels[0].permute(2, 0, 1) / 255, (2, 2, 2, 2))
        windows = torch.stack(
            [padded[:, top : top + SIDE, left : left + SIDE] for top in range(5) for left in range(5)]
        )
        either = torch.cat([windows, windows.flip(3)])
        equal = (actual[:, None] == either[None]).all((2, 3, 4))
        assert (equal.sum(1) == 1).all()
        assert (equal.sum(0) > 0).all()  # all 25 offsets, both ways round

    @pytest.mark.parametrize("size", [SIDE, SIDE - 5])
    def test_resized_crops_match_pillow(self, size):
        """Up to Pillow's rounding to bytes, when it resizes the same box by antialiased bilinear interpolation."""
        side, n, seed, epoch = 2 * SIDE, 60, 5, 2
        pixels, _ = squares(n, side)
        actual = Augmenter(pixels, "square-resized-crop-flip", SIDE, seed).batch(torch.arange(n), epoch, size=size)
        areas = []
        numbers = randomness.per_image(seed, randomness.AUGMENTATION, epoch, torch.arange(n), 6).tolist()
        for image, result, (flip, area, ratio, left, top, _) in zip(pixels.numpy(), actual, numbers, strict=True):
            area, ratio = side**2 * (0.08 + 0.92 * area), (3 / 4) ** (1 - ratio) * (4 / 3) ** ratio
            width, height = min(side, (area * ratio) ** 0.5), min(side, (area / ratio) ** 0.5)
            left, top = left * (side - width), top * (side - height)
            areas.append(width * height / side**2)
            box = (left, top, left + width, top + height)
            expected = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box))
            expected = expected[:, ::-1] if flip < 0.5 else expected
            inner = (slice(None), slice(1, -1), slice(1, -1))  # Pillow looks beyond the box at its edges
            difference = result.numpy() * 255 - expected.transpose(2, 0, 1)
            assert np.abs(difference[inner]).max() <= 1.01
        assert min(areas) < 0.2
        assert max(areas) > 0.9

    @pytest.mark.parametrize("kind", ["none", "flip", "crop-flip"])
    def test_a_smaller_size_is_the_augmented_image_resized_as_pillow_does(self, kind):
        pixels = torch.from_numpy(np.stack([picture(SIDE, SIDE, seed) for seed in range(20)]))
        augmenter = Augmenter(pixels, kind, SIDE, seed=1)
        whole, actual = (augmenter.batch(torch.arange(20), 3, size=size) for size in (SIDE, 11))
        assert actual.shape == (20, 3, 11, 11)
        assert actual.is_contiguous(memory_format=torch.channels_last)
        for image, smaller in zip((whole * 255).round().byte().permute(0, 2, 3, 1).numpy(), actual, strict=True):
            expected = np.asarray(Image.fromarray(image).resize((11, 11), Image.Resampling.BILINEAR))
            assert np.abs(smaller.numpy() * 255 - expected.transpose(2, 0, 1)).max() <= 1.01

    @pytest.mark.parametrize("kind", ["none", "flip", "crop-flip", "square-resized-crop-flip"])
    def test_randomness_depends_on_numbers_not_on_positions(self, kind):
        """So that a subset of the images in memory gives the same bits as all of them."""
        pixels, _ = squares(20, 2 * SIDE if "resized" in kind else SIDE)
        numbers = torch.tensor([13, 2, 7, 2])
        expected = Augmenter(pixels, kind, SIDE, seed=3).batch(numbers, 4)
        some = Augmenter(pixels[numbers], kind, SIDE, seed=3)
        assert torch.equal(some.batch(torch.arange(4), 4, numbers=numbers), expected)

    def test_crops_of_stored_images_are_refused(self):
        with pytest.raises(ValueError, match="resized-crop-flip crops images as they are stored"):
            Augmenter(squares()[0], "resized-crop-flip", SIDE, 0)


class TestColours:
    def images(self, n=24, seed=0):
        pixels = np.stack([picture(10, 12, 1000 * seed + i) for i in range(n)])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255

    def test_jitter_matches_torchvision(self):
        """For given factors, in each of the six orders; they are so extreme that values are clamped in between."""
        from torchvision.transforms import functional

        changes = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
        images = self.images()
        factors = torch.rand(24, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
        orders = torch.arange(24) % 6
        actual = jittered(images, factors, orders)
        for image, result, factor, order in zip(images, actual, factors.tolist(), orders.tolist(), strict=True):
            for change in ORDERS[order]:
                image = changes[change](image, factor[change])
            torch.testing.assert_close(result, image, rtol=0, atol=2e-6)
        assert ((actual == 0) | (actual == 1)).any()
        assert torch.equal(images, self.images())  # what was given stays

    def test_factors_of_1_change_nothing(self):
        torch.testing.assert_close(jittered(self.images(), torch.ones(24, 3), torch.arange(24) % 6), self.images())

    def test_lighting_follows_alexnet(self):
        """Krizhevsky et al. (2012), section 4.1: to each pixel add [p1, p2, p3][a1 λ1, a2 λ2, a3 λ3]ᵀ."""
        images, amounts = self.images(4), torch.randn(4, 3, generator=torch.Generator().manual_seed(0)) / 2
        for image, result, amount in zip(images, with_lighting(images, amounts), amounts.tolist(), strict=True):
            for channel in range(3):
                shift = sum(COMPONENTS[channel][i] * amount[i] * DEVIATIONS[i] for i in range(3))
                torch.testing.assert_close(result[channel], (image[channel] + shift).clamp(0, 1), rtol=0, atol=1e-6)

    def test_components_are_orthonormal(self):
        matrix = torch.tensor(COMPONENTS)
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(3), rtol=0, atol=5e-4)

    def test_lighting_has_the_covariance_of_its_components(self):
        grey = torch.full((20_000, 3, 1, 1), 0.5)
        actual = Colours(Recipe(lighting=0.1), seed=2).changed(grey, torch.arange(20_000), 0)[:, :, 0, 0].double() - 0.5
        matrix, deviations = torch.tensor(COMPONENTS).double(), torch.tensor(DEVIATIONS).double()
        expected = matrix @ torch.diag((0.1 * deviations) ** 2) @ matrix.T
        assert actual.mean(0).abs().max() < 4 * 0.0218 / 20_000**0.5
        torch.testing.assert_close(actual.T.cov(), expected, rtol=0.05, atol=0)

    def test_jitter_factors_are_uniform(self):
        grey = torch.full((6000, 3, 1, 1), 0.5)  # contrast and saturation leave grey as it is
        actual = Colours(Recipe(colour_jitter=0.4), seed=0).changed(grey, torch.arange(6000), 0)[:, 0, 0, 0] / 0.5
        drawn = torch.histc(actual, 10, 0.6, 1.4)
        assert 0.6 <= actual.min() < 0.61
        assert 1.39 < actual.max() <= 1.4
        assert ((drawn - 600).square() / 600).sum() < 34  # chi-squared with 9 degrees of freedom, p < 1e-4

    def test_jitter_uses_all_orders(self):
        numbers = torch.arange(3000)
        drawn = randomness.per_image(0, randomness.COLOUR, 0, numbers, 4)
        image = torch.tensor([0.9, 0.5, 0.1]).view(1, 3, 1, 1)
        actual = Colours(Recipe(colour_jitter=0.9), seed=0).changed(image.expand(3000, -1, 1, 1), numbers, 0)
        factors, counts = 1 + 0.9 * (2 * drawn[:, :3] - 1), torch.zeros(6)
        for order in range(6):
            same = jittered(image.expand(3000, -1, 1, 1), factors, torch.full((3000,), order)) == actual
            counts[order] = same.flatten(1).all(1).sum()
        assert counts.min() > 500  # of each order; in some images several come to the same

    @pytest.mark.parametrize("settings", [{"colour_jitter": 0.3}, {"lighting": 0.3}], ids=str)
    def test_an_image_does_not_depend_on_its_batch(self, settings):
        images, some = self.images(), torch.tensor([13, 2, 7])
        colours = Colours(Recipe(**settings), seed=3)
        together = colours.changed(images, torch.arange(24), 1)
        assert not torch.equal(together, images)
        assert 0 <= together.min() < together.max() <= 1
        torch.testing.assert_close(colours.changed(images[some], some, 1), together[some], rtol=0, atol=1e-6)
        for seed, epoch in ((3, 2), (4, 1)):
            assert not torch.equal(Colours(Recipe(**settings), seed).changed(images[some], some, epoch), together[some])

    def test_jitter_and_lighting_have_golden_values(self):
        """A change would change every network trained with the paper's recipe."""
        image = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
        actual = Colours(Recipe(colour_jitter=0.1, lighting=0.05), seed=3).changed(image, torch.tensor([41]), 5)
        assert actual.flatten().tolist() == pytest.approx([0.212938, 0.433656, 0.654078], abs=1e-6)

    def test_memory_format_is_kept(self):
        images = self.images().contiguous(memory_format=torch.channels_last)
        actual = Colours(Recipe(colour_jitter=0.1, lighting=0.1), 0).changed(images, torch.arange(24), 0)
        assert actual.is_contiguous(memory_format=torch.channels_last)
        assert actual.dtype == torch.float32


class TestCrops:
    def boxes(self, height, width, n=4000):
        rows = randomness.per_image(1, randomness.AUGMENTATION, 0, torch.arange(n), CROP_NUMBERS)[:, 1:].tolist()
        return [crop_box(height, width, row) for row in rows]

    @pytest.mark.parametrize("size", [(375, 500), (500, 333), (250, 500), (64, 64)])
    def test_boxes_have_torchvisions_distribution(self, size):
        """Area, ratio and place: two-sample Kolmogorov-Smirnov, p < 1e-4 each. At 250 × 500 many attempts fail."""
        from torchvision.transforms import RandomResizedCrop

        height, width = size
        torch.manual_seed(0)
        blank = torch.empty(3, height, width)
        theirs = [RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
        ours = self.boxes(height, width)
        assert min(map(min, ours)) >= 0
        assert all(top + tall <= height and left + wide <= width for top, left, tall, wide in ours)

        def quantities(boxes):
            top, left, tall, wide = np.array(boxes).T
            return tall * wide, wide / tall, top / np.maximum(1, height - tall), left / np.maximum(1, width - wide)

        for one, other in zip(quantities(ours), quantities(theirs), strict=True):
            one, other = np.sort(one), np.sort(other)
            at = np.concatenate([one, other])
            distance = np.abs(np.searchsorted(one, at, "right") - np.searchsorted(other, at, "right")).max() / 4000
            assert distance < 2.2 * (2 / 4000) ** 0.5

    @pytest.mark.parametrize("size", [(20, 400), (400, 20), (10, 250), (33, 1000)])
    def test_without_a_fitting_attempt_the_centre_is_taken_as_in_torchvision(self, size):
        from torchvision.transforms import RandomResizedCrop

        expected = RandomResizedCrop.get_params(torch.empty(3, *size), [0.08, 1.0], [3 / 4, 4 / 3])
        assert set(self.boxes(size[0], size[1], n=50)) == {tuple(expected)}

    def test_later_attempts_are_used(self):
        """At 100 × 250, attempts fail whose box is higher than the image."""
        fits, too_high = [0.1, 0.5, 0.0, 0.999], [1.0, 0.0, 0.5, 0.5]
        side = round((25_000 * (0.08 + 0.92 * 0.1)) ** 0.5)
        for number in range(TRIES):
            tries = [*(too_high * number), *fits, *([0.1, 0.5, 0.5, 0.5] * (TRIES - 1 - number))]
            assert crop_box(100, 250, tries) == (0, 250 - side, side, side)
        assert crop_box(100, 250, too_high * TRIES) == (0, (250 - 133) // 2, 100, 133)

    @pytest.mark.parametrize("size", [48, 224])
    def test_pixels_match_torchvision(self, size):
        from torchvision.transforms import functional

        image = Image.fromarray(picture(123, 167))
        flipped = 0
        for row in randomness.per_image(2, randomness.AUGMENTATION, 0, torch.arange(30), CROP_NUMBERS).tolist():
            expected = functional.resized_crop(image, *crop_box(123, 167, row[1:]), [size, size])
            if row[0] < 0.5:
                expected, flipped = functional.hflip(expected), flipped + 1
            assert np.array_equal(random_crop(image, row, size), np.asarray(expected))
        assert 5 < flipped < 25

    def test_golden_box(self):
        """A change would change every network trained with the paper's recipe."""
        row = randomness.per_image(3, randomness.AUGMENTATION, 5, torch.tensor([41]), CROP_NUMBERS)[0].tolist()
        assert crop_box(375, 500, row[1:]) == (76, 61, 264, 344)


def test_normal_numbers_are_normal_and_independent():
    actual = randomness.normal(randomness.per_image(0, randomness.LIGHTING, 0, torch.arange(50_000), 4))
    assert actual.shape == (50_000, 4)
    assert actual.mean(0).abs().max() < 4 / 50_000**0.5
    torch.testing.assert_close(actual.T.cov(), torch.eye(4, dtype=torch.float64), rtol=0.03, atol=0.02)
    within = [(actual.abs() < bound).double().mean().item() for bound in (1, 2, 3)]
    assert within == pytest.approx([math.erf(bound / 2**0.5) for bound in (1, 2, 3)], abs=0.004)
