"""What stays unimported, so that a hundred short jobs do not each wait for torch, or hold its memory.

CPU seconds that an import costs on a quiet machine: torch 3, torchvision 8, scikit-learn 4, pandas 1.5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from robust_transfer.configuration.training import PretrainingSettings
from robust_transfer.registry import ALL_STAGES, STAGES
from robust_transfer.store.features import write_features
from support.paths import ROOT
from support.prepared_datasets import encoded_squares, new_entry, prepared, squares, write_parquet, written
from support.processes import output

TORCH = {"torch", "torchvision", "timm"}
SLOW = TORCH | {"pandas", "sklearn", "scipy", "matplotlib"}
ARRAYS = SLOW | {"numpy", "pyarrow", "PIL"}
EVERYTHING = ARRAYS | {"pydantic"}
BESIDE_TORCH = SLOW - {"torch"} | {"torch._dynamo"}
"""What a stage that runs networks does without: torch's compiler too costs more than a short job's own work."""

CONFIGURATION = ROOT / "config.yaml"


@dataclass(frozen=True)
class Row:
    """Code that runs in a process of its own, and what that must not import."""

    name: str
    code: str
    not_imported: set[str]
    prints: str = ""
    """What it must print."""
    makes: Callable[[Path], object] = Path
    """Makes, in a folder, what the code gets as `sys.argv[1]`; by default it gets the folder."""


def module(name: str, not_imported: set[str]) -> Row:
    return Row(name, f"import robust_transfer.{name}", not_imported)


def command(line: str, not_imported: set[str]) -> Row:
    """A command of the command line, which must succeed; what it prints does not matter here."""
    code = f"""
        import contextlib, io
        from robust_transfer import cli
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.main({[*line.split(), "--configfile", str(CONFIGURATION)]!r}) == 0
    """
    return Row(f"command {line}", code, not_imported)


def features_for(stage: str, root: Path) -> Path:
    random, classes = np.random.default_rng(0), 4
    features = new_entry(root, "features", {})
    counts = {"train": 100, "test": 50}
    with features.writing() as draft:
        for split, n in counts.items():
            values = random.normal(size=(n, 16)).astype(np.float16)
            write_features(draft.file(f"{split}.arrow"), values, np.arange(n) % classes)
        draft.facts = {"classes": [str(number) for number in range(classes)], "counts": counts, "origin": {}}
    return new_entry(root, stage, {}, features=features).path


def backbone_to_train(root: Path) -> Path:
    for seed, (split, n) in enumerate({"train": 48, "test": 30}.items()):
        write_parquet(root / "data" / f"{split}.parquet", *encoded_squares(n, seed=seed))
    source = prepared(root, {"kind": "parquet", "path": str(root / "data")})
    augmentation = {"augmentation": "square-resized-crop-flip", "colour_jitter": 0.1}
    settings = {
        **{"architecture": "resnet8_w4", "input_size": 16, "preprocessing": {"resize_ratio": 1.0}, "seed": 0},
        **{"norm": "l2", "eps": "0.5", "attack": {"steps": 2}, "recipe": "short"},
        "training": {"epochs": 2, "batch_size": 16, "learning_rate": 0.05, "precision": "bf16", **augmentation},
    }
    described = PretrainingSettings.model_validate(settings).model_dump(mode="json")
    return new_entry(root, "pretraining", described, source=source).path


def images_to_load(root: Path) -> Path:
    images, labels = squares(40, side=48)
    return written(root, [*images.numpy()], labels.tolist()).path


def run_stage(name: str) -> str:
    return f"""
        import sys
        from pathlib import Path
        from robust_transfer.stages import {name}
        from robust_transfer.store.entry import open_entry
        {name}.run(open_entry(Path(sys.argv[1])), threads=1, device="cpu")
    """


LOOK_UP_ACCURACY = """
    from robust_transfer.tables.published import published_accuracy
    print(published_accuracy("resnet18", "l2", "5"))
"""
CHECK_ARCHITECTURE = """
    from robust_transfer.architectures import check_architecture
    check_architecture("timm_resnet10t")
"""
LOOK_FOR_WEIGHTS = """
    from pathlib import Path
    from robust_transfer.configuration.weights import ImportingSettings
    from robust_transfer.weights.files import is_present
    settings = dict(architecture="resnet18", input_size=224, norm=None, eps="0")
    kinds = ("released", "torchvision")
    print([is_present(ImportingSettings(**settings, weights=dict(kind=kind)), Path("nowhere")) for kind in kinds])
"""
LOOK_FOR_DATASETS = """
    import sys
    from pathlib import Path
    from robust_transfer.configuration.datasets import CatalogueOrigin
    from robust_transfer.datasets.finding import missing, present_source
    origin = CatalogueOrigin(kind="catalogue", dataset="dtd")
    print(present_source(origin, Path(sys.argv[1])), bool(missing(origin, Path("x"))))
"""
LOAD_IMAGES = """
    import sys
    from pathlib import Path
    import numpy as np
    import torch
    from robust_transfer.configuration.running import Running
    from robust_transfer.configuration.training import Recipe
    from robust_transfer.datasets.arrow import open_split
    from robust_transfer.loading.loader import Subset, open_loader
    from robust_transfer.store.entry import open_entry
    split = open_split(open_entry(Path(sys.argv[1])), "train")
    for kind in ("flip", "resized-crop-flip"):
        loader = open_loader(
            [Subset(split, np.arange(len(split)))],
            Recipe(augmentation=kind, colour_jitter=0.1, lighting=0.1),
            input_size=32, resize_ratio=1.0, seed=0, device=torch.device("cpu"), threads=1, running=Running(),
        )
        for batch in loader.batches(0, [torch.arange(4)], 24):
            print(len(batch))
        loader.close()
"""
WITH_TORCH = [stage.name for stage in ALL_STAGES.values() if stage.uses_gpu or stage.name == "importing"]

ROWS = (
    Row("robust_transfer", "import robust_transfer", EVERYTHING),
    *(module(name, EVERYTHING) for name in ("registry", "architectures", "machine.launch", "resuming.interruption")),
    *(module(name, EVERYTHING) for name in ("store.entry", "store.fingerprint", "tables.published")),
    *(module(name, ARRAYS) for name in ("cli", "tables.sanity", "datasets.finding", "weights.files")),
    *(module(name, ARRAYS) for name in ("configuration.load", "configuration.experiment", "configuration.running")),
    *(module(f"dag.{name}", ARRAYS) for name in ("grid", "wiring", "availability", "experiment_file")),
    module("planning.command", SLOW),
    *(module(name, SLOW - {"pandas"}) for name in ("tables.results", "tables.training", "tables.seeds")),
    *(module(f"stages.{name}", SLOW - {"pandas"}) for name in ALL_STAGES if ALL_STAGES[name].kind == "collected"),
    *(module(f"stages.{name}", SLOW) for name in STAGES if name not in WITH_TORCH),
    module("stages." + ", robust_transfer.stages.".join(WITH_TORCH), BESIDE_TORCH),
    *(command(line, ARRAYS) for line in ("where", "entries")),
    command("plan --gpu A100", SLOW),
    Row("look up a published accuracy", LOOK_UP_ACCURACY, EVERYTHING, prints="45.59"),
    Row("check an architecture of timm", CHECK_ARCHITECTURE, EVERYTHING),
    Row("look for weights", LOOK_FOR_WEIGHTS, ARRAYS, prints="[False, True]"),
    Row("look for datasets", LOOK_FOR_DATASETS, ARRAYS, prints="None True"),
    Row("load images", LOAD_IMAGES, BESIDE_TORCH, prints="4\n4", makes=images_to_load),
    Row("fit probes", run_stage("probing"), SLOW, makes=partial(features_for, "probing")),
    Row("search for neighbours", run_stage("knn"), TORCH, makes=partial(features_for, "knn")),
    Row("train a backbone", run_stage("pretraining"), BESIDE_TORCH, makes=backbone_to_train),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_nothing_is_imported_that_is_not_needed(row: Row, tmp_path: Path) -> None:
    if row.code is CHECK_ARCHITECTURE and not find_spec("timm"):
        pytest.skip("not installed: make setup EXTRAS=timm")
    code = f"{dedent(row.code)}\nimport sys; print('imported:', *sorted(set(sys.argv[2:]) & sys.modules.keys()))"
    printed = output(code, row.makes(tmp_path), *sorted(row.not_imported)).splitlines()
    assert printed[-1].split() == ["imported:"]
    assert "\n".join(printed[:-1]) == row.prints
