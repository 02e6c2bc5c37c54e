"""The report's methods section: every sentence is of the experiment that it describes."""

import html
import re
from typing import Any

import pytest
from docutils.core import publish_parts
from robust_transfer.configuration.load import load
from robust_transfer.dag.methods import methods
from support.paths import ROOT


def described(*names: str, without: tuple[str, ...] = (), **options: Any) -> str:
    """The text for experiments that come with the software (none: the default), as a reader sees it, in one line."""
    text = methods(load([ROOT / "experiments" / f"{name}.yaml" for name in names], options), without)
    body = publish_parts(text, writer="html", settings_overrides={"report_level": 1})["html_body"]
    assert "system-message" not in body, body
    found = " ".join(html.unescape(re.sub(r"<[^>]+>", "", body)).split())
    for wrong in ("None", "{", " .", " ,", "..", ",,", " ;", "()"):
        assert wrong not in found, found
    return found


SMALL: dict[str, Any] = {"widths": [], "fixed_eps": None}


def test_the_default_experiment_says_that_it_trains() -> None:
    text = described()
    assert "resnet8_w16, resnet8_w8 and resnet8_w12 are trained on Objects at 24 × 24 pixels" in text
    assert "for 5 epochs in batches of 32. " in text
    assert "0.4, 1 and 4 in the L2 norm. A network of ε 0 is a standard one" in text
    assert "A robust network sees, at every step of its training, images that projected gradient descent of 1" in text
    assert "descent of 1 step (1.25 ε" in text
    assert (
        "test images: clean, and attacked by projected gradient descent of 10 steps (0.25 ε each, from a random start, "
        "the iterate of highest loss). While a network"
    ) in text
    assert "every parameter is trained on the target, with a learning rate of 0.2." in text
    assert 'choose the strength of the regression, and in "best robust" numbers ε and the network too; after' in text
    assert "In full-network transfer the learning rate was fixed beforehand: a network is trained once, on the" in text
    assert "only 20 training images of each class" in text
    assert "by the paper's protocol" not in text
    assert "imported" not in text.lower()
    assert "unless a column says otherwise" not in text
    assert "Left out" not in text


def test_training_on_targets_says_how_it_differs_from_the_papers() -> None:
    attack = {"eps": 0.5, "steps": 2, "ramp_start": 0.25, "ramp_end": 0.75}
    settings = ["standard-head", "adversarial-head", "adversarial-full"]
    part = {
        "architectures": ["resnet8_w8"],
        "eps": [0, 0.5],
        "protocols": ["paper"],
        "variants": [{"setting": name} for name in settings],
    }
    text = described(
        grid=[part],
        figures=SMALL,
        linear_heads={"attack": {"eps": 0.5}},
        finetuning={"attack": attack, "head": "probe", "trainable": {"last_blocks": 2}, "batchnorm": "frozen"},
    )
    assert "Some heads are trained adversarially, at every step on images that the adversary of pretraining" in text
    assert "as it is then: 3 steps within ε 0.5 in the L2 norm." in text
    assert "All networks are trained adversarially" in text
    assert "where ε is 0 for 25 % of the steps and whole after 75 %." in text
    assert "All fine-tuning starts at the head that logistic regression fits" in text
    assert "All fine-tuning trains the last 2 blocks with the head alone; the rest is frozen." in text
    assert "All fine-tuning leaves BatchNorm's statistics those of pretraining." in text
    assert "under attack, averaged" not in text
    plain = described()
    for word in ("adversarially, at every step on images that the adversary", "fine-tuning starts at", "AdamW"):
        assert word not in plain


def test_stylized_images_and_what_is_trained_on_them() -> None:
    text = described()
    assert (
        "trained without an attack, from the weights of a standard network, on native and stylized images for" in text
    )
    assert "Some networks are tested on stylized images of the source too, without training: the outline stays" in text
    texture = described("texture")
    assert "native and stylized images for 2 epochs. Of a stylized image, the shapes stay" in texture
    assert "Some transfers are to stylized images" not in texture
    part = {"architectures": ["resnet8_w8"], "eps": [0], "transfer_to_source": ["stylized"]}
    other = described("texture", **SMALL_FIGURES, grid=[part])
    assert "Some transfers are to stylized images: the shapes stay" in other
    assert "Texture-robust" not in other


SMALL_FIGURES: dict[str, Any] = {"figures": {"widths": [], "fixed_eps": None}}


def test_real_images_and_protocols_over_them_are_described_as_they_are() -> None:
    tiny = described("tiny-imagenet")
    assert "by the paper's protocol" not in tiny
    assert "on Tiny-ImageNet at 32 × 32 pixels, for 8 epochs in batches of 64." in tiny
    gap = described("tiny-imagenet", "protocol-gap")
    assert "resnet8_w16 is trained on Tiny-ImageNet" in gap
    assert "0.1, 0.25 and 0.5 in the L2 norm" in gap
    assert "if any, unless a column says otherwise." in gap
    assert "Full-network" not in gap
    assert "Every choice is also made on test images, as the paper did; figures show what validation" in gap


def test_neighbours_are_described_with_what_is_chosen_for_them() -> None:
    def parts(*protocols: str) -> list[dict[str, Any]]:
        return [{"architectures": ["resnet8_w8"], "eps": [0], "modes": ["fixed-feature"], "protocols": protocols}]

    both = described(grid=parts("frozen", "knn"), figures=SMALL)
    assert "its nearest training images vote for, by the cosine of activations before the head." in both
    assert "choose the strength of the regression and the number of neighbours, and in" in both
    alone = described(grid=parts("knn"), features={"layer": "layer3"}, figures=SMALL)
    assert "by the cosine of activations in layer layer3." in alone
    assert "logistic regression" not in alone
    assert "choose the number of neighbours, and in" in alone


def test_the_papers_networks_are_imported_and_evaluated_on_clean_images() -> None:
    text = described("paper")
    says = "imported from published weights (released: the networks that the paper's authors trained and released)."
    assert f"shufflenet_v2_x1_0 and vgg16_bn are {says}" in text
    assert "Imported networks see images of 224 × 224 pixels." in text
    assert "3 and 5 in the L2 norm, and 0.5/255, 1/255, 2/255, 4/255 and 8/255 in the L∞ norm." in text
    assert "A robust network was trained on images perturbed within that ball, by those who published it." in text
    assert "is its accuracy on the source's test images: it is evaluated on clean images alone." in text
    assert "some are evaluated on the source alone" in text
    assert "multinomial logistic regression" not in text  # no part of it measures by the frozen protocol
    assert "As in the paper, the learning rate, and" in text
    for word in ("epochs", "batches", "attacked", "While a network trains", "training images is measured"):
        assert word not in text, word


def test_from_scratch_the_same_networks_are_trained() -> None:
    text = described("paper-from-scratch")
    assert "vgg16_bn are trained on ImageNet at 224 × 224 pixels, for 90 epochs in batches of 512." in text
    assert "imported" not in text.lower()
    assert "While a network trains" in text


def test_shape_bias_is_described_by_who_decides_on_what() -> None:
    assert (
        "On images of Objects that bear the grating of another class, the network's own outputs decide." in described()
    )
    real = described("tiny-imagenet", "shape-bias")
    assert (
        "On images with the shape of one class and the texture of another, a linear probe on features of CIFAR-10"
        in real
    )
    assert "Caltech-101, whose images show no conflict, decides, among 9 classes. The shape bias is the share" in real
    assert "Shape bias" not in described("tiny-imagenet")
    assert "Shape bias" not in described("tiny-imagenet", "shape-bias", without=("cifar10",))


def test_what_was_left_out_is_named_and_is_no_target() -> None:
    text = described("paper", without=("birdsnap", "sun397"))
    assert "Left out, since their images were not there: Birdsnap, SUN397. Transfer." in text
    assert "Food and Pets. Not every" in text
    assert text.count("Birdsnap") == text.count("SUN397") == 1
    no_source = described("paper", without=("imagenet",))
    assert "not there: the source, ImageNet, so that no accuracy on it was measured." in no_source
    assert "evaluated on" not in no_source
    both = described("paper", without=("birdsnap", "imagenet"))
    assert "not there: Birdsnap; and the source, ImageNet, so that" in both


def test_trained_and_imported_backbones_stand_side_by_side() -> None:
    weights = {
        "tv": {"kind": "torchvision", "weights": "IMAGENET1K_V2"},
        "sin": {"kind": "stylized-imagenet", "trained_on": "sin-and-in"},
        "ours": {"kind": "files", "path": "nets/{architecture}.pt"},
        "hub": {"kind": "timm"},
    }
    grid = [
        {"architectures": ["resnet18"], "eps": [0, 3], "backbones": "trained"},
        {"architectures": ["resnet50", "wide_resnet50_2"], "eps": [0], "backbones": "tv"},
        {"architectures": ["resnet50"], "eps": [0], "backbones": "sin"},
        {"architectures": ["timm_resnet26"], "eps": [0], "backbones": "hub"},
    ]
    text = described("paper", weights=weights, grid=grid, figures=SMALL)
    assert "resnet18 is trained on ImageNet at 224 × 224 pixels" in text
    assert (
        "resnet50 and wide_resnet50_2 are imported from published weights (tv: torchvision's own, IMAGENET1K_V2); "
        "resnet50 is imported from published weights (sin: those that Geirhos et al. (2019) trained on "
        "Stylized-ImageNet and ImageNet); timm_resnet26 is imported from published weights (hub: timm's own). "
        "Imported networks"
    ) in text
    assert (
        "iterate of highest loss) has perturbed within that ball. What" in text
    )  # none of the imported ones is robust
    assert "While a network trains" in text
    grid[1:] = [{"architectures": ["resnet50"], "eps": [1], "backbones": "ours"}]
    weights["ours"]["path"] = "nets/robust.pt"
    text = described("paper", weights=weights, grid=grid, figures=SMALL)
    assert "imported from published weights (ours: checkpoints from nets/robust.pt)." in text
    assert "within that ball; imported ones were trained on perturbed images by those who published them." in text


def test_networks_that_are_only_evaluated_need_no_account_of_transfer() -> None:
    grid = [{"architectures": ["resnet18"], "eps": [0], "modes": []}]
    text = described("paper", grid=grid, figures=SMALL)
    assert "Nothing is transferred: networks are evaluated on the source alone." in text
    assert "All are standard networks (ε 0)." in text
    for word in ("Choice.", "targets are", "Fixed-feature", "has no interval", "robust network"):
        assert word not in text, word


def test_settings_of_transfer_are_those_of_the_experiment() -> None:
    grid = [{"architectures": ["resnet18"], "eps": [0, 3], "protocols": ["paper"], "modes": ["fixed-feature"]}]
    heads = {"learning_rates": [0.05], "batchnorm": "frozen", "normalisation": "source"}
    text = described("paper", grid=grid, linear_heads=heads, figures=SMALL, targets=["pets"], evaluation={"eps": [1]})
    assert "The target is Pets." in text
    assert "with a learning rate of 0.05. BatchNorm's statistics stay those of pretraining" in text
    assert "images are normalised as in pretraining." in text
    assert (
        "clean, and attacked by projected gradient descent of 20 steps (0.125 ε each, from a random start, the" in text
    )
    rates = {"learning_rates": [1, 0.1, 0.01]}
    several = described("paper", grid=grid, linear_heads=rates, figures=SMALL)
    assert "with each of the learning rates 1, 0.1 and 0.01. BatchNorm's statistics drift" in several
    layered = described(features={"layer": "layer3"})
    assert "activations in layer layer3." in layered


def test_an_attack_of_one_step_and_autoattack_are_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    text = described(pretraining={"attack": {"steps": 1}}, evaluation={"autoattack": True})
    assert "projected gradient descent of 1 step (1.25 ε each" in text
    assert "attacked by projected gradient descent of 10 steps (0.25 ε each, from a random start, the" in text
    assert "the iterate of highest loss) and by AutoAttack. While" in text
    text = described(evaluation={"attack": {"restarts": 3, "random_start": True}})
    assert "(0.25 ε each, from a random start, the worst of 3 starts, the iterate of highest loss)" in text


def test_rates_that_are_chosen_and_one_that_is_not_are_told_apart() -> None:
    full = [{"architectures": ["resnet18"], "eps": [0, 3], "modes": ["full-network"]}]
    one, two = (
        described("paper", grid=full, figures=SMALL, selection=["validation"], finetuning={"learning_rates": rates})
        for rates in ([0.1], [0.1, 0.01])
    )
    assert "choose the learning rate, and in" in two
    assert "fixed beforehand: a network is trained once" not in two
    assert 'choose ε and the network of "best robust" numbers, and the test images are looked at once.' in one
    assert "the learning rate was fixed beforehand: a network is trained once" in one
    tested = described("paper", grid=full, figures=SMALL, selection=["test"], finetuning={"learning_rates": [0.1]})
    assert "fixed beforehand: a network is trained once" not in tested


def test_one_epoch_is_called_so() -> None:
    assert "for 1 epoch in batches of 32." in described(pretraining={"training": {"epochs": 1}})


def test_with_both_selections_the_first_is_the_one_that_is_shown() -> None:
    text = described(selection=["test", "validation"])
    assert "Choice. With selection on validation, nothing is chosen on test images." in text
    assert "Every choice is also made on validation images; figures show what test images choose" in text
    assert "What was chosen on the test images that it is reported on has no interval;" in text


def test_title_notice_and_labels_are_plain_text() -> None:
    datasets = {"coarse": {"label": "Coarse_ *shapes*"}, "fine": {"label": "`fine`|_"}}
    text = described(title="", notice="A *caution*,\nin two lines_", datasets=datasets)
    assert text.startswith("shapes Read this first A *caution*, in two lines_ Do networks")
    assert "The targets are Coarse_ *shapes*, `fine`|_ and Textures." in text
    assert "Read this first" not in described(notice="")
