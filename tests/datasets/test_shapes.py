"""The constructed world: what is fixed by a seed, what by a class, and what each task's label means."""

import numpy as np
import pytest
from pydantic import ValidationError
from robust_transfer.configuration.datasets import ShapesOrigin
from robust_transfer.datasets.origins import shapes
from robust_transfer.datasets.origins.shapes import (
    CLASSES,
    class_gratings,
    class_outlines,
    class_strengths,
    generate,
    shown_outlines,
)

TASKS = tuple(CLASSES)


def origin(task="objects", **settings) -> ShapesOrigin:
    return ShapesOrigin(**{"kind": "shapes", "task": task, "train": 60, "test": 60, **settings})


def images(task="objects", split="train", **settings) -> np.ndarray:
    return generate(origin(task, **settings), split)[0]


def gratings(task: str, count: int, amplitude=0.1) -> np.ndarray:
    """What the texture adds to the pixels, in [0, 1] units: the same images with and without it."""
    with_it, without = (images(task, train=count, amplitude=value).astype(float) for value in (amplitude, 0))
    difference: np.ndarray = (with_it - without) / 255
    return difference


def peaks(waves: np.ndarray) -> np.ndarray:
    """Strongest spatial frequency of each image, (x, y) with x ≥ 0, in cycles a pixel, read off a padded transform."""
    spectrum = (np.abs(np.fft.rfft2(waves, s=(256, 256), axes=(1, 2))) ** 2).sum(axis=3)
    y, x = np.unravel_index(spectrum.reshape(len(waves), -1).argmax(axis=1), spectrum.shape[1:])
    return np.stack([x / 256, (y + 128) % 256 / 256 - 0.5], axis=1)


def class_peaks(task: str) -> np.ndarray:
    frequency, orientation = class_gratings(task)
    return np.stack([frequency * np.cos(orientation), frequency * np.sin(orientation)], axis=1)


def off(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Distance of two frequencies, which are the same when both signs are turned, and by whole cycles a pixel."""
    apart = [found - sign * expected for sign in (1, -1)]
    distances: np.ndarray = np.min([np.linalg.norm(d - np.round(d), axis=1) for d in apart], axis=0)
    return distances


@pytest.mark.parametrize("task", TASKS)
def test_images_have_the_promised_form_and_balanced_labels(task):
    found, labels, names = generate(origin(task, train=100, side=20), "train")
    assert found.shape == (100, 20, 20, 3)
    assert (found.dtype, labels.dtype) == (np.uint8, np.int64)
    assert tuple(names) == CLASSES[task]
    assert set(np.bincount(labels, minlength=len(names))) == {100 // len(names)}


@pytest.mark.parametrize("task", TASKS)
def test_fewer_images_are_the_first_of_more(task, monkeypatch):
    monkeypatch.setattr(shapes, "_CHUNK", 16)
    many = images(task, train=50)
    monkeypatch.setattr(shapes, "_CHUNK", 23)
    np.testing.assert_array_equal(images(task, train=37), many[:37])


def test_no_image_occurs_twice_in_splits_seeds_or_tasks():
    drawn = [images(task, split, seed=seed) for task in TASKS for split in ("train", "test") for seed in (0, 1, 2**63)]
    assert len({image.tobytes() for part in drawn for image in part}) == 60 * len(drawn)


def test_the_seed_changes_images_and_not_classes():
    before = [class_outlines("objects").copy(), *class_gratings("objects")]
    class_outlines.cache_clear()
    class_gratings.cache_clear()
    images(seed=7)
    for old, new in zip(before, [class_outlines("objects"), *class_gratings("objects")], strict=True):
        np.testing.assert_array_equal(old, new)


def test_another_side_shows_the_same_picture():
    small, large = (images(side=side, amplitude=0).astype(float) for side in (32, 64))
    averaged = large.reshape(60, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(averaged - small).mean() < 1.5


@pytest.mark.parametrize("task", ["objects", "textures"])
def test_a_class_has_its_own_grating(task):
    labels = np.arange(60) % len(CLASSES[task])
    shown = class_strengths(origin().plain)[labels] > 0.2 if task == "objects" else np.full(60, True)
    found, expected = peaks(gratings(task, 60)), class_peaks(task)
    assert off(found[shown], expected[labels[shown]]).max() < 0.02
    apart = [off(expected[i : i + 1], expected[j : j + 1])[0] for i in range(len(expected)) for j in range(i)]
    assert min(apart) > 0.04


@pytest.mark.parametrize("task", ["coarse", "fine", "counting"])
def test_elsewhere_a_grating_says_nothing_of_the_class(task):
    waves = gratings(task, 300)
    labels = np.arange(300) % len(CLASSES[task])
    strong = np.sqrt((waves**2).mean(axis=(1, 2, 3))) > 0.02
    found = peaks(waves[strong])
    spread = [off(found[own], found[own][:1]).max() for own in (labels[strong] == i for i in range(len(CLASSES[task])))]
    assert min(spread) > 0.2


def test_plain_classes_have_no_grating_and_the_others_rise_to_the_amplitude():
    strengths = class_strengths(0.35)
    assert (strengths == 0).sum() == 7
    assert strengths.max() == 1
    assert np.all(np.diff(np.sort(strengths)[6:]) > 0)
    loudness = np.sqrt((gratings("objects", 400) ** 2).mean(axis=(1, 2, 3)))
    labels = np.arange(400) % 20
    assert loudness[strengths[labels] == 0].max() == 0
    # A sine of amplitude .1 has a root mean square of .07; images stray by 30 %, and clipping takes a little.
    assert 0.055 < loudness[strengths[labels] == 1].mean() < 0.08
    assert (class_strengths(0) == 0).sum() == 1


def test_contrast_is_at_least_what_was_asked():
    for contrast in (0.3, 0.7):
        grey = images("coarse", train=200, amplitude=0, contrast=contrast).mean(axis=3) / 255
        # The centre of the image always lies in the shape; corners in the ground, but for shading of up to .17.
        corners = grey[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=1)
        gap = np.abs(grey[:, 15:17, 15:17].mean(axis=(1, 2)) - corners)
        assert gap.min() > contrast - 0.1
        assert gap.max() < shapes.CONTRAST_MAX + 0.1


@pytest.mark.parametrize("task", ["objects", "coarse", "fine"])
def test_outlines_differ_under_every_rotation_that_occurs(task):
    theta = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    r = 1 + (class_outlines(task) @ np.exp(1j * np.outer(shapes.HARMONICS, theta))).real
    assert r.shape[0] == len(CLASSES[task])
    assert r.min() > 0.4
    wobble = shapes.DETAIL_WOBBLE if task == "fine" else shapes.COARSE_WOBBLE
    turns = range(-46, 47)  # half degrees, up to .4 rad: one image turned by -.2 against one turned by .2
    for i in range(len(r)):
        for j in range(i):
            nearest = min(np.sqrt(np.mean((r[i] - np.roll(r[j], turn)) ** 2)) for turn in turns)
            assert nearest > 0.9 * shapes.LIKENESS * wobble


def test_counting_shows_as_many_shapes_as_it_says():
    found, labels, _ = generate(origin("counting", train=100, side=64, amplitude=0, contrast=0.6), "train")
    grey = found.mean(axis=3) / 255
    # Each shape covers the centre of its cell of a 3×3 grid and no other's; the corners between cells are ground.
    at = [round(32 + 32 * 0.62 * step) for step in (-1, 0, 1)]
    cells = grey[:, at][:, :, at].reshape(100, 9)
    ground = grey[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=1, keepdims=True)
    np.testing.assert_array_equal((np.abs(cells - ground) > 0.35).sum(axis=1), labels + 1)


def test_the_images_of_today_are_those_of_tomorrow():
    # Sums of all pixels, within a rounding of the last bit in one pixel of a hundred, as another libm may have it.
    sums = [images(task, train=20).astype(int).sum() for task in TASKS]
    golden = [8_729_196, 8_552_383, 8_750_871, 8_165_813, 6_795_633]
    np.testing.assert_allclose(sums, golden, rtol=0, atol=20 * 32 * 32 * 3 // 100)


class TestClasses:
    def test_fewer_are_the_first_with_gratings_spread_anew(self):
        found, labels, names = generate(origin(classes=12, train=120, amplitude=0), "train")
        assert tuple(names) == CLASSES["objects"][:12]
        assert set(np.bincount(labels)) == {10}
        np.testing.assert_array_equal(class_outlines("objects", 12), class_outlines("objects")[:12])
        _, orientations = class_gratings("objects", 12)
        np.testing.assert_allclose(np.diff(orientations), np.pi / 12, rtol=1e-5)
        # The first 12 images are of the classes that they are of where there are 20, and those are the same images.
        np.testing.assert_array_equal(found[:12], images(train=12, amplitude=0))

    @pytest.mark.parametrize("classes", [4, 7, 12, 20])
    def test_the_share_that_is_plain_is_kept(self, classes):
        strengths = class_strengths(0.25, classes)
        assert strengths.max() == 1
        assert (strengths == 0).sum() == 1 + int(0.25 * (classes - 1))

    @pytest.mark.parametrize("setting", [{"classes": 12}, {"misleading": 0.1}, {"twins": 0.5}])
    def test_other_tasks_refuse_what_is_of_the_source_alone(self, setting):
        (name,) = setting
        with pytest.raises(ValidationError, match=f"{name} = .*: task coarse does not read it; leave it out"):
            origin("coarse", **setting)

    def test_at_their_defaults_all_three_may_be_stated(self):
        stated = origin("fine", classes=20, misleading=0, twins=0)
        np.testing.assert_array_equal(generate(stated, "train")[0], images("fine"))


class TestMisleading:
    SHARE, N = 0.3, 4000

    def shown(self, share=SHARE, classes=12):
        """Labels of N images, the classes whose outlines they show, and which classes have a grating."""
        asked = origin(classes=classes, misleading=share, plain=0.25)
        uniform = np.random.default_rng(0).random((2, self.N), np.float32)
        labels = np.arange(self.N) % classes
        return labels, shown_outlines(asked, labels, *uniform), class_strengths(0.25, classes) > 0

    def test_the_share_counts_among_images_of_classes_with_a_grating(self):
        labels, shown, textured = self.shown()
        misled = shown != labels
        assert not misled[~textured[labels]].any()
        # Five standard deviations of a share of 3,000 images are 4 points.
        assert misled[textured[labels]].mean() == pytest.approx(self.SHARE, abs=0.04)

    def test_every_other_class_lends_its_outline(self):
        labels, shown, _ = self.shown()
        lent = np.bincount(shown[shown != labels], minlength=12)
        assert lent.min() > 0.5 * lent.mean()
        np.testing.assert_array_equal(self.shown(share=0)[1], labels)

    def test_an_image_changes_its_outline_and_nothing_else(self):
        plain, some = (
            images(train=600, classes=12, amplitude=0),
            images(train=600, classes=12, amplitude=0, misleading=0.3),
        )
        changed = (plain != some).any(axis=(1, 2, 3))
        textured = class_strengths(origin().plain, 12)[np.arange(600) % 12] > 0
        assert not changed[~textured].any()
        assert changed[textured].mean() == pytest.approx(0.3, abs=0.1)
        # The upper edge is ground, which stays, but where an outline reaches it.
        assert (plain[:, 0] == some[:, 0]).mean() > 0.999

    def test_more_of_them_hold_those_of_fewer(self):
        few, many = (images(classes=12, misleading=share) for share in (0.2, 0.6))
        none = images(classes=12)
        misled = [(part != none).any(axis=(1, 2, 3)) for part in (few, many)]
        np.testing.assert_array_equal(few[misled[0]], many[misled[0]])
        assert misled[0].sum() < misled[1].sum()

    def test_both_splits_mislead_and_fewer_images_are_the_first_of_more(self):
        for split in ("train", "test"):
            asked = origin(classes=12, misleading=0.5, **{split: 40})
            assert (generate(asked, split)[0] != images(split=split, classes=12, **{split: 40})).any()
        np.testing.assert_array_equal(
            images(classes=12, misleading=0.5, train=25), images(classes=12, misleading=0.5, train=60)[:25]
        )


class TestTwins:
    def radii(self, twins, classes=12):
        theta = np.linspace(0, 2 * np.pi, 720, endpoint=False)
        outlines = class_outlines("objects", classes, twins)
        return 1 + (outlines @ np.exp(1j * np.outer(shapes.HARMONICS, theta))).real

    @pytest.mark.parametrize(("twins", "pairs"), [(0, 0), (0.34, 2), (0.67, 4), (1, 6)])
    def test_pairs_differ_by_twice_the_detail_and_by_detail_alone(self, twins, pairs):
        outlines, without = class_outlines("objects", 12, twins), class_outlines("objects", 12)
        for first in range(0, 2 * pairs, 2):
            difference = (outlines[first] - outlines[first + 1]) / 2
            assert np.abs(difference[: shapes.HARMONICS.index(shapes.DETAIL[0])]).max() == 0
            assert np.sqrt((np.abs(difference) ** 2).sum() / 2) == pytest.approx(shapes.TWIN_WOBBLE, rel=1e-4)
            np.testing.assert_allclose(outlines[first] + outlines[first + 1], 2 * without[first], atol=1e-6)
        np.testing.assert_array_equal(outlines[2 * pairs :], without[2 * pairs :])

    def test_classes_that_are_no_twins_stay_apart(self):
        r = self.radii(0.67)
        turns = range(-46, 47)
        for i in range(len(r)):
            for j in range(i):
                nearest = min(np.sqrt(np.mean((r[i] - np.roll(r[j], turn)) ** 2)) for turn in turns)
                if j == i - 1 and j % 2 == 0 and i < 8:
                    assert 0.5 * shapes.TWIN_WOBBLE < nearest < 2.01 * shapes.TWIN_WOBBLE
                else:
                    assert nearest > 0.7 * shapes.LIKENESS * shapes.COARSE_WOBBLE

    def test_other_outlines_are_untouched(self):
        class_outlines.cache_clear()
        before = class_outlines("objects").copy()
        class_outlines("objects", 12, 1.0)
        np.testing.assert_array_equal(class_outlines("objects"), before)


def test_the_default_world_of_today_is_that_of_tomorrow():
    world = {"side": 24, "amplitude": 0.09, "plain": 0.25, "contrast": 0.5}
    made = images(train=20, classes=12, misleading=0.08, twins=0.67, **world).astype(int)
    assert made.sum() == pytest.approx(4_860_007, abs=20 * 24 * 24 * 3 // 100)


class TestTexturesExchanged:
    """`generate(…, textures=…)`: every image with the grating of a class that is given."""

    def test_images_differ_from_their_own_by_the_gratings_alone(self):
        settings = {"train": 40, "plain": 0, "contrast": 0.5, "side": 32}
        labels = np.arange(40) % 20
        for amplitude, differs in ((0.0, False), (0.1, True)):
            world = origin(amplitude=amplitude, **settings)
            changed = generate(world, "train", textures=(labels + 7) % 20)[0]
            assert bool((changed != generate(world, "train")[0]).any()) is differs

    def test_given_its_own_classes_nothing_changes(self):
        world = origin(twins=0.5)
        np.testing.assert_array_equal(
            generate(world, "test", textures=np.arange(60) % 20)[0], images(split="test", twins=0.5)
        )

    def test_the_gratings_are_those_of_the_classes_given(self):
        settings = {"train": 40, "plain": 0}
        textures = (np.arange(40) * 3 + 5) % 20
        waves = [
            generate(origin(amplitude=a, **settings), "train", textures=textures)[0].astype(float) for a in (0.1, 0)
        ]
        found = peaks((waves[0] - waves[1]) / 255)
        visible = class_strengths(0)[textures] > 0.3
        assert np.median(off(found, class_peaks("objects")[textures])[visible]) < 0.02

    def test_no_image_misleads(self):
        world = origin(misleading=0.9, amplitude=0)
        np.testing.assert_array_equal(
            generate(world, "train", textures=np.zeros(60, np.int64))[0], images(amplitude=0, misleading=0)
        )

    def test_other_tasks_are_refused(self):
        with pytest.raises(ValueError, match="task fine"):
            generate(origin("fine"), "train", textures=np.zeros(60, np.int64))
