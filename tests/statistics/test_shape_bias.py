"""Shape bias: decisions among classes of outputs, counts by hand, and intervals that cover."""

import numpy as np
import pytest
from robust_transfer.configuration.catalogue.imagenet import imagenet_classes
from robust_transfer.configuration.catalogue.imagenet16 import imagenet16
from robust_transfer.statistics.shape_bias import Decisions, by_shape, count, decide
from robust_transfer.weights.cue_outputs import outputs_by_class
from scipy.special import softmax


def log(*probabilities):
    """Logits whose softmax these are."""
    return np.log(np.array(probabilities, float))


def test_a_class_is_worth_the_mean_of_its_outputs_and_not_their_sum_or_maximum():
    scores = log([0.3, 0.3, 0.4])  # sums .6 and .4, means .3 and .4
    assert decide(scores, [[0, 1], [2]]).tolist() == [1]
    scores = log([0.5, 0.02, 0.3, 0.18])  # maxima .5 and .3, means .26 and .3
    assert decide(scores, [[0, 1], [2]]).tolist() == [1]


def test_outputs_of_no_class_take_their_share_of_the_probability_and_never_decide():
    scores = log([0.1, 0.2, 0.7])
    assert decide(scores, [[0], [1]]).tolist() == [1]


def test_of_equal_classes_the_first_is_decided_for():
    scores = log([0.25, 0.25, 0.25, 0.25], [0.1, 0.1, 0.6, 0.2])
    assert decide(scores, [[1], [0]]).tolist() == [0, 0]
    assert decide(scores, [[2, 0], [3], [1, 2]]).tolist() == [0, 0]  # .25 each; then .35, .2, .35


def test_decisions_are_those_of_scipys_softmax_and_numpys_means():
    random = np.random.default_rng(0)
    scores = random.normal(0, 5, (200, 40)).astype(np.float32)
    outputs = [[0], [1, 2, 3], [5, 9, 17, 33], [12, 39]]
    means = np.array([[row[of_class].mean() for of_class in outputs] for row in softmax(scores.astype(float), axis=1)])
    np.testing.assert_array_equal(decide(scores, outputs), means.argmax(1))


def test_large_logits_do_not_overflow():
    assert decide(np.array([[2000.0, 0.0, 1999.0]]), [[0, 1], [2]]).tolist() == [0]


#                    shape texture decision
BY_HAND = np.array([[0, 1, 0], [0, 1, 1], [0, 2, 2], [0, 0, 0], [1, 0, 2], [1, 2, 1], [1, 1, 2], [2, 0, 2], [2, 1, 2]])


def test_counts_by_hand_with_agreeing_cues_left_out():
    shapes, textures, decisions = BY_HAND.T
    found = count(shapes, textures, decisions)
    assert found == Decisions(shape=4, texture=2, neither=1)
    assert (found.images, found.decided) == (7, 6)
    assert found.shape_bias == pytest.approx(100 * 4 / 6)
    assert found.share(found.texture) == pytest.approx(100 * 2 / 7)


def test_counts_by_class_of_the_shape():
    shapes, textures, decisions = BY_HAND.T
    assert by_shape(shapes, textures, decisions) == {
        0: Decisions(shape=1, texture=2, neither=0),
        1: Decisions(shape=1, texture=0, neither=1),
        2: Decisions(shape=2, texture=0, neither=0),
    }
    agreeing = np.array([0, 0, 1]), np.array([1, 0, 1]), np.array([0, 0, 1])
    assert list(by_shape(*agreeing)) == [0]  # class 1 shows no conflict


def test_counts_are_numpys_sums_on_random_decisions():
    shapes, textures, decisions = np.random.default_rng(1).integers(0, 5, (3, 500))
    found = count(shapes, textures, decisions)
    kept = shapes != textures
    assert found.shape == np.sum(decisions[kept] == shapes[kept])
    assert found.texture == np.sum(decisions[kept] == textures[kept])
    assert found.images == kept.sum()
    parts = by_shape(shapes, textures, decisions).values()
    assert sum(part.shape for part in parts) == found.shape
    assert sum(part.images for part in parts) == found.images


def test_without_decisions_there_is_no_shape_bias():
    none = Decisions(0, 0, 9)
    assert none.shape_bias is None
    with pytest.raises(ValueError, match="no image was decided"):
        none.interval(100, 0)


def test_the_interval_is_the_bootstraps_over_images():
    found = Decisions(shape=60, texture=140, neither=100)
    low, high = found.interval(4000, seed=0)
    random = np.random.default_rng(5)
    images = np.repeat([0, 1, 2], [60, 140, 100])
    drawn = [random.choice(images, 300) for _ in range(4000)]
    biases = [100 * (one == 0).sum() / (one < 2).sum() for one in drawn]
    assert (low, high) == pytest.approx(np.percentile(biases, (2.5, 97.5)), abs=0.6)
    assert found.interval(4000, seed=0) == (low, high)


@pytest.mark.parametrize(("counts", "ends"), [((0, 20, 5), (0, 16.84)), ((20, 0, 5), (83.16, 100))])
def test_where_all_decisions_are_alike_the_interval_has_a_width(counts, ends):
    assert Decisions(*counts).interval(100, 0) == pytest.approx(ends, abs=0.01)  # 1 - .025^(1/20)


@pytest.mark.parametrize("truth", [0.05, 0.3, 0.7])
def test_intervals_cover_the_truth_in_about_95_of_100_experiments(truth):
    """Of 700 images, a fifth decided for neither, as of the default experiment."""
    random = np.random.default_rng(2)
    held = 0
    for experiment in range(400):
        shape, texture, neither = random.multinomial(700, [0.8 * truth, 0.8 * (1 - truth), 0.2])
        low, high = Decisions(shape, texture, neither).interval(500, experiment)
        held += low <= 100 * truth <= high
    assert 0.92 * 400 <= held <= 0.98 * 400


def test_the_published_mapping():
    """Counts as published, 207 in all; and some of the published indices, by which its code names the classes."""
    of_class = imagenet16()
    assert list(of_class) == sorted(of_class)
    counts = {name: len(wnids) for name, wnids in of_class.items()}
    assert counts == {
        **{"airplane": 1, "bear": 4, "bicycle": 2, "bird": 49, "boat": 5, "bottle": 7, "car": 3, "cat": 6},
        **{"chair": 4, "clock": 3, "dog": 109, "elephant": 2, "keyboard": 2, "knife": 1, "oven": 1, "truck": 8},
    }
    every = [wnid for wnids in of_class.values() for wnid in wnids]
    assert len(set(every)) == 207
    assert set(every) <= {*imagenet_classes()}
    outputs = outputs_by_class(imagenet_classes(), list(of_class))
    assert outputs["bear"] == [294, 295, 296, 297]
    assert outputs["car"] == [436, 511, 817]
    assert outputs["truck"] == [555, 569, 656, 675, 717, 734, 864, 867]
    assert outputs["dog"][:3] + outputs["dog"][-3:] == [152, 153, 154, 266, 267, 268]
    assert (outputs["airplane"], outputs["knife"], outputs["oven"]) == ([404], [499], [766])


def test_outputs_by_name_come_before_the_published_mapping():
    assert outputs_by_class(["dog", "n02123045", "n02099601", "lamp"], ["cat", "dog", "oven"]) == {
        "cat": [1],
        "dog": [0],
    }
