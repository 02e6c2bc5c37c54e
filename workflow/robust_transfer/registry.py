"""What stages and figures there are. Everything that lists them reads this: the command line, rules, plans, tests.

A stage has one name, which its rule (`rules/<name>.smk`), its module (`stages/<name>.py`), its command, its test
(`tests/stages/test_<name>.py`) and its folder in the store share. No torch, no other module of the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PACKAGE = "robust_transfer"


@dataclass(frozen=True)
class Stage:
    """One stage of the experiment."""

    name: str
    summary: str
    """What it does, in one line of the command line's help."""
    description: str
    """What it reads and writes."""
    kind: Literal["expensive", "cheap", "collected"]
    """An expensive entry is kept when code changes, and one line says so; a cheap one is made again. What is collected
    is made for one experiment, lies in `results/<experiment>/` and is cheap."""
    uses_gpu: bool = False
    """It runs networks: on a GPU where there is one."""
    interruptible: bool = False
    """It saves how far it is when asked to leave, and goes on from there."""
    multiprocess: bool = False
    """Several processes can share one job, each with a GPU."""
    originals: Literal["data", "weights"] | None = None
    """The setting under `running` that names the folder of files from outside the store that it reads."""

    @property
    def module(self) -> str:
        """Module with `run(entry, *, threads, device)`; its imports make the stage's fingerprint."""
        return f"{PACKAGE}.stages.{self.name}"

    @property
    def expensive(self) -> bool:
        """Its entries are kept when code changes."""
        return self.kind == "expensive"


ALL_STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "datasets",
            "prepare a dataset: decode, check, limit and store its images",
            "Reads the origin named in entry.json (a folder, parquet files, a torchvision class, the built-in\n"
            "generator) and writes train.arrow, test.arrow and, where the origin has one, validation.arrow.",
            "expensive",
            originals="data",
        ),
        Stage(
            "granularity",
            "derive a dataset with less detail: its images downscaled",
            "Reads the dataset that entry.json names and writes the same images with a smaller short side, losslessly.",
            "expensive",
        ),
        Stage(
            "stylizing",
            "derive a dataset with other textures: its images stylized",
            "Reads the dataset that entry.json names, and the one that gives the styles; writes the same images with\n"
            "other textures, losslessly, and samples.png, a contact sheet.",
            "expensive",
            uses_gpu=True,
            interruptible=True,
        ),
        Stage(
            "importing",
            "import a backbone from published weights",
            "Reads a checkpoint below the folder of weights, or downloads it where that is allowed; nothing in it is\n"
            "executed. Writes weights.safetensors.",
            "expensive",
            originals="weights",
        ),
        Stage(
            "pretraining",
            "train a backbone on the source, adversarially unless its eps is 0",
            "Reads the source dataset; writes weights.safetensors and epochs.csv, one row per epoch.",
            "expensive",
            uses_gpu=True,
            interruptible=True,
            multiprocess=True,
        ),
        Stage(
            "evaluation",
            "measure a backbone on the source's test images, clean and attacked",
            "Reads a backbone and its source; writes metrics.json: accuracy on clean images and under PGD at each eps.",
            "cheap",
            uses_gpu=True,
        ),
        Stage(
            "conflicts",
            "prepare cue-conflict images: the shape of one class with the texture of another",
            "Reads the files named in entry.json, or draws images by the built-in generator; writes test.arrow, whose\n"
            "labels are pairs of classes.",
            "cheap",
            originals="data",
        ),
        Stage(
            "features",
            "extract a dataset's features from a frozen backbone",
            "Reads a backbone and a dataset; writes the activations before the head, or of the layer that entry.json\n"
            "names, as train.arrow, test.arrow, ….",
            "cheap",
            uses_gpu=True,
            interruptible=True,
        ),
        Stage(
            "probing",
            "fit the frozen protocol's linear probe, all strengths at once",
            "Reads features; chooses a strength on validation images, refits on all training images, tests once;\n"
            "writes metrics.json, predictions.parquet and strengths.csv.",
            "cheap",
        ),
        Stage(
            "knn",
            "classify by the nearest training images in feature space, the knn protocol",
            "Reads features; chooses the number of neighbours on validation images, searches all training images,\n"
            "tests once; writes metrics.json, predictions.parquet and neighbours.csv.",
            "cheap",
        ),
        Stage(
            "cue_conflict",
            "measure whether a backbone decides by shape or by texture",
            "Reads a backbone and conflict images, and where a probe decides features of images without a conflict;\n"
            "writes metrics.json (the shape bias, over all images and by class) and decisions.csv.",
            "cheap",
            uses_gpu=True,
        ),
        Stage(
            "gallery",
            "show what a backbone responds to: attacks, gradients, images rebuilt, classes visualised",
            "Reads a backbone and its source; writes four contact sheets (adversarial.png, gradients.png,\n"
            "inversions.png, visualisations.png) and metrics.json, the numbers beside them.",
            "cheap",
            uses_gpu=True,
        ),
        Stage(
            "linear_heads",
            "train linear heads on a frozen network by the paper's protocol, the whole grid at once",
            "Reads a backbone and a dataset. A search run measures validation accuracy; a final run trains on all\n"
            "training images and tests; writes metrics.json, predictions.parquet and epochs.csv.",
            "expensive",
            uses_gpu=True,
            interruptible=True,
        ),
        Stage(
            "finetuning",
            "fine-tune a whole network on a target",
            "Reads a backbone and a dataset. A search run trains with one learning rate and measures validation\n"
            "accuracy; a refit takes the best search's rate, trains on all training images and tests; a final run\n"
            "does so at a rate it is given; a fixed run, at the one rate there is, trains as a search and measures\n"
            "both; writes metrics.json, predictions.parquet and epochs.csv.",
            "expensive",
            uses_gpu=True,
            interruptible=True,
        ),
        Stage(
            "selecting",
            "select the best of runs that differ in hyperparameters, on validation or on test images",
            "Reads runs of linear_heads or finetuning; writes metrics.json, predictions.parquet and runs.csv.",
            "cheap",
        ),
        Stage(
            "robustness",
            "attack transferred models, network and head as one, on test images of their targets",
            "Reads transfers of one backbone and what their weights come from; writes metrics.json, accuracies on\n"
            "clean and on attacked images, and attacked.parquet, what every image was taken for.",
            "cheap",
            uses_gpu=True,
            interruptible=True,
        ),
        Stage(
            "test_sets",
            "test transferred models on other test sets of the same classes",
            "Reads transfers of one backbone, what their weights come from, and further test images or their\n"
            "features; writes metrics.json, and test_sets.parquet, what every image was taken for.",
            "cheap",
            uses_gpu=True,
        ),
        Stage("results", "collect the measured numbers of an experiment in one table", "", "collected"),
        Stage("claims", "test claims on the results table: a ledger of verdicts", "", "collected"),
        Stage("figures", "draw figures and tables from the results table", "", "collected"),
        Stage("report", "sum an experiment up in plain text", "", "collected"),
        Stage("page", "write an experiment's page: the answer, every figure and every number", "", "collected"),
    )
}
"""Every stage by name, in the order data flows."""
STAGES = {name: stage for name, stage in ALL_STAGES.items() if stage.kind != "collected"}
"""Those whose entries lie in the store."""
COLLECTED = {"results": "results.parquet", "claims": "claims.html", "report": "summary.txt", "page": "index.html"}
"""Of what is collected, figures apart, the file in `results/<experiment>/` that stands for all that the stage makes."""


@dataclass(frozen=True)
class Figure:
    """One figure or table of an experiment."""

    name: str
    """Its files are named by it, and the function that draws it is."""
    shows: str
    """What it shows, for the configuration's documentation."""
    module: str
    """Module of `robust_transfer.figures` with that function."""
    paper: str = ""
    """What it is called in the paper; empty for what the paper does not show."""
    table: Literal["results", "training"] = "results"
    """The table that it is drawn from."""
    is_table: bool = False
    """It is a table itself: text, and no picture."""
    default: bool = True
    """It is drawn unless the configuration says otherwise."""
    published: bool = False
    """The paper published such numbers: it can be drawn from them, or from ours over them."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of its files; the first is the one that the report shows."""
        return ("html", "tex", "md", "csv") if self.is_table else ("png", "pdf", "svg", "csv")


FIGURES = {
    figure.name: figure
    for figure in (
        Figure(
            "headline",
            "standard against the best robust networks",
            "headline",
            "Table 1",
            is_table=True,
            published=True,
        ),
        Figure("fixed_feature", "fixed-feature transfer by architecture", "by_architecture", "Fig. 2", published=True),
        Figure("full_network", "full-network transfer by architecture", "by_architecture", "Fig. 3", published=True),
        Figure("source_accuracy", "transfer over accuracy on the source", "source_accuracy", "Fig. 5", published=True),
        Figure(
            "fixed_robustness",
            "how well source accuracy predicts transfer at each eps",
            "fixed_robustness",
            "Table 2",
            is_table=True,
            published=True,
        ),
        Figure("width", "transfer over the network's width", "width", "Fig. 6", published=True),
        Figure("granularity", "transfer over eps with detail taken away", "granularity", "Fig. 7", published=True),
        Figure(
            "source_accuracy_full_network",
            "full-network transfer over accuracy on the source",
            "source_accuracy",
            "Fig. 11",
            default=False,
            published=True,
        ),
        Figure(
            "width_full_network",
            "full-network transfer over the network's width",
            "width",
            "appendix",
            default=False,
            published=True,
        ),
        Figure(
            "width_downscaled",
            "transfer from downscaled images over the network's width",
            "width",
            "appendix",
            default=False,
            published=True,
        ),
        Figure(
            "granularity_full_network",
            "full-network transfer over eps with detail taken away",
            "granularity",
            "appendix",
            default=False,
            published=True,
        ),
        Figure("norms", "L2 against L∞ networks", "norms", "appendix", default=False, published=True),
        Figure(
            "other_architectures",
            "standard against robust networks of other architectures",
            "by_architecture",
            "appendix",
            default=False,
            published=True,
        ),
        Figure("eps_curves", "transfer over eps, both modes", "eps_curves", published=True),
        Figure(
            "eps_table",
            "every accuracy by eps",
            "eps_table",
            "appendix",
            is_table=True,
            default=False,
            published=True,
        ),
        Figure(
            "texture",
            "stylized images, and texture-robust networks",
            "texture",
            "Fig. 8",
            default=False,
            published=True,
        ),
        Figure(
            "shape_bias",
            "share of decisions for the shape where shape and texture are of different classes",
            "shape_bias",
            default=False,
            published=True,
        ),
        Figure(
            "inversion",
            "how well images are rebuilt from their representation, over eps",
            "inversion",
            default=False,
        ),
        Figure(
            "robust_transfer",
            "clean and attacked accuracy on targets, over eps",
            "robust_transfer",
            default=False,
        ),
        Figure(
            "predictors",
            "transfer over properties of backbones, with correlations",
            "predictors",
            default=False,
        ),
        Figure(
            "predictors_table",
            "correlations of properties of backbones with transfer, by target",
            "predictors_table",
            is_table=True,
            default=False,
        ),
        Figure("training", "the backbones' curves over epochs", "training", table="training"),
        Figure("few_images", "transfer from few images", "few_images", published=True),
        Figure("protocol_gap", "the paper's way of measuring beside the frozen one", "protocol_gap", is_table=True),
        Figure(
            "imported",
            "source accuracies of imported networks beside the published ones",
            "imported",
            is_table=True,
            default=False,
        ),
    )
}
"""Every figure by name, those of the paper first and in its order."""
