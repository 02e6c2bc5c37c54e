"""Planning: work counted by hand, what is done subtracted, hours and prices, and measuring a machine."""

import functools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from robust_transfer.configuration.load import merge, validate
from robust_transfer.configuration.training import Recipe
from robust_transfer.dag.grid import Grid, PlannedEntry, plan
from robust_transfer.datasets.splits import validation_mask
from robust_transfer.planning import rates
from robust_transfer.planning.calibration import _mean, calibrate, fitted_seconds, start_seconds
from robust_transfer.planning.command import run_plan
from robust_transfer.planning.images import ImageCounts, counting, image_counts, set_aside
from robust_transfer.planning.networks import counted, size_of
from robust_transfer.planning.plan import Plan, make_plan, wanted
from robust_transfer.planning.rates import Calibrated, RateError, published_rates
from robust_transfer.planning.report import as_json, table
from robust_transfer.planning.work import PASSES, WORK, Pass, UnknownImagesError, Work, _train, work_of
from robust_transfer.registry import ALL_STAGES, STAGES
from robust_transfer.store.entry import CARD
from robust_transfer.store.features import write_features
from robust_transfer.training.schedules import side_at
from support.paths import ROOT
from support.prepared_datasets import prepared, write_folder, write_parquet

TINY: dict[str, Any] = {
    "experiment": "tiny",
    "input_size": 32,
    "datasets": {
        "objects": {"origin": {"kind": "shapes", "task": "objects", "train": 320, "test": 50}},
        "coarse": {"origin": {"kind": "shapes", "task": "coarse", "train": 100, "test": 40}},
    },
    "source": "objects",
    "targets": ["coarse"],
    "grid": [{"architectures": ["resnet8_w8"], "eps": [0, 0.25], "protocols": ["frozen", "paper"]}],
    "pretraining": {
        "recipe": "own",
        "training": {"epochs": 4, "batch_size": 32, "augmentation": "none"},
        "attack": {"steps": 3, "use_best": True},
        "check": {"images": 16, "steps": 5, "every": 3},
    },
    "evaluation": {"eps": [0.5], "attack": {"steps": 10, "use_best": True}},
    "linear_heads": {"training": {"epochs": 6, "augmentation": "none"}, "learning_rates": [0.1, 0.01]},
    "finetuning": {"training": {"epochs": 5, "augmentation": "none"}, "learning_rates": [0.1]},
}


def tiny(tmp_path: Path, **over: Any) -> Grid:
    configuration = yaml.safe_load(yaml.safe_dump(TINY))
    merge(configuration, {"store": str(tmp_path / "store"), "results": str(tmp_path / "results"), **over})
    return plan(validate(configuration))


def entry_of(grid: Grid, stage: str, *parts: str) -> PlannedEntry:
    return next(e for e in grid.stage(stage).values() if all(part in e.name for part in parts))


def kinds(work: Work) -> dict[str, int]:
    return {kind: work.of(kind) for kind in PASSES if work.of(kind)}


def finish(grid: Grid, *stages: str) -> None:
    for stage in stages:
        for entry in grid.stage(stage).values():
            folder = Path(grid.experiment.store) / entry.id
            folder.mkdir(parents=True)
            counts = {"train": 320, "test": 50} if "objects" in entry.name else {"train": 100, "test": 40}
            facts = {"counts": counts, "classes": list("abcdefgh"), "encoding": "raw"}
            (folder / CARD).write_text(json.dumps({"facts": facts, "files": {"train.arrow": {"bytes": 1000}}}))


class TestWorkOfAnEntry:
    def work(self, tmp_path: Path, stage: str, *parts: str, **over: Any) -> Work:
        grid = tiny(tmp_path, **over)
        return work_of(entry_of(grid, stage, *parts), counting(tmp_path / "store"))

    def test_standard_training_takes_its_epochs_and_two_checks_of_a_sixteenth(self, tmp_path: Path) -> None:
        assert kinds(self.work(tmp_path, "pretraining", "eps0_")) == {"train": 4 * 320, "forward": 2 * 16}

    def test_adversarial_training_takes_every_step_and_the_loss_at_the_last_iterate(self, tmp_path: Path) -> None:
        work = self.work(tmp_path, "pretraining", "eps0.25")
        assert kinds(work) == {
            "train": 4 * 320,
            "attack": 3 * 4 * 320 + 2 * 16 * 5,
            "forward": 4 * 320 + 2 * 16 * 2,
        }

    def test_flops_are_passes_times_those_of_a_forward_pass(self, tmp_path: Path) -> None:
        work = self.work(tmp_path, "pretraining", "eps0.25")
        passes = 3 * 1280 + 2 * (3840 + 160) + 1 * (1280 + 64)
        assert work.flops == passes * size_of("resnet8_w8", 32).flops

    def test_without_use_best_the_last_iterate_needs_no_pass(self, tmp_path: Path) -> None:
        work = self.work(tmp_path, "pretraining", "eps0.25", pretraining={"attack": {"use_best": False}})
        assert kinds(work)["forward"] == 2 * 16 * 2

    def test_an_average_of_weights_estimates_statistics_on_perturbed_images(self, tmp_path: Path) -> None:
        averaged = {"training": {"average_decay": 0.9, "average_images": 100}}
        more, less = (self.work(tmp_path, "pretraining", "eps0.25", **over) for over in ({"pretraining": averaged}, {}))
        assert more.of("forward") - less.of("forward") == 128 * 2  # four batches of 32 hold 100
        assert more.of("attack") - less.of("attack") == 128 * 3

    def test_growing_images_cost_by_their_area(self, tmp_path: Path) -> None:
        growing = {"training": {"start_scale": 0.5, "growing_fraction": 1.0}, "check": {"every": 100}}
        work = self.work(tmp_path, "pretraining", "eps0_", pretraining=growing)
        trained = {key.side: images for key, images in work.images.items() if key.kind == "train"}
        assert trained == {16: 320, 20: 320, 24: 320, 28: 320}

    def test_evaluation_attacks_every_test_image_at_every_radius(self, tmp_path: Path) -> None:
        standard, robust = (self.work(tmp_path, "evaluation", name) for name in ("eps0_", "eps0.25"))
        assert kinds(standard) == {"forward": 50 * (1 + 2), "attack": 50 * 10}
        assert kinds(robust) == {"forward": 50 * (1 + 2 * 2), "attack": 50 * 2 * 10}

    def test_features_take_all_splits_once(self, tmp_path: Path) -> None:
        assert kinds(self.work(tmp_path, "features", "eps0_")) == {"forward": 140}

    def test_heads_share_their_pass_and_search_without_validation_images(self, tmp_path: Path) -> None:
        searched, final = (self.work(tmp_path, "linear_heads", "eps0_", purpose) for purpose in ("search", "final"))
        classes = image_counts(entry_of(tiny(tmp_path), "datasets", "coarse"), tmp_path)
        assert classes is not None
        held = set_aside(100, classes.classes, 0.2)
        assert kinds(searched) == {"heads": 6 * (100 - held), "forward": held}
        assert kinds(final) == {"heads": 6 * 100, "forward": 40}

    def test_neighbours_are_searched_for_as_often_as_there_are_selections(self, tmp_path: Path) -> None:
        part = {"architectures": ["resnet8_w8"], "eps": [0], "modes": ["fixed-feature"], "protocols": ["knn"]}
        found = [
            work_of(entry_of(tiny(tmp_path, grid=[part], selection=selections), "knn"), counting(tmp_path))
            for selections in (["validation"], ["test"], ["validation", "test"])
        ]
        classes = image_counts(entry_of(tiny(tmp_path), "datasets", "coarse"), tmp_path)
        assert classes is not None
        held, dimension = set_aside(100, classes.classes, 0.2), 32
        choosing, testing = held * (100 - held) * dimension, 40 * 100 * dimension
        assert [work.compared for work in found] == [choosing + testing, testing, choosing + 2 * testing]
        assert rates.processor_seconds(found[0]) == pytest.approx(rates.COMPARED_SECONDS * found[0].compared)

    def test_finetuning_trains_every_epoch(self, tmp_path: Path) -> None:
        two = {"finetuning": {"learning_rates": [0.1, 0.01]}}
        assert kinds(self.work(tmp_path, "finetuning", "eps0_", "refit", **two)) == {"train": 5 * 100, "forward": 40}

    def test_adversarial_fine_tuning_takes_every_step_and_a_search_the_attack_that_chooses(
        self, tmp_path: Path
    ) -> None:
        attack = {"eps": 0.5, "steps": 2, "use_best": False}
        under = {"eps": [0, 0.25, 0.5], "steps": 4, "use_best": False}
        choose = {"choose_by": "expected", "chosen_under": under}
        two = {"finetuning": {"learning_rates": [0.1, 0.01], "attack": attack, **choose}}
        refit = kinds(self.work(tmp_path, "finetuning", "eps0_", "refit", **two))
        assert refit == {"train": 5 * 100, "attack": 5 * 100 * 2, "forward": 40}
        search = kinds(self.work(tmp_path, "finetuning", "eps0_", "lr0.1_", **two))
        held = search["train"] // 5
        assert search["forward"] == 3 * (100 - held)
        assert search["attack"] == 5 * held * 2 + 2 * 4 * (100 - held)

    def test_a_head_alone_takes_forward_passes(self, tmp_path: Path) -> None:
        alone = {"finetuning": {"learning_rates": [0.1, 0.01], "trainable": "head"}}
        assert kinds(self.work(tmp_path, "finetuning", "eps0_", "refit", **alone)) == {"heads": 5 * 100, "forward": 40}

    def test_a_fixed_run_is_a_search_that_is_tested_too(self, tmp_path: Path) -> None:
        two = {"finetuning": {"learning_rates": [0.1, 0.01]}}
        search, fixed = (
            kinds(self.work(tmp_path, "finetuning", "eps0_", purpose, **over))
            for purpose, over in (("lr0.1_seed", two), ("lr0.1_fixed", {}))
        )
        assert fixed == search | {"forward": search["forward"] + 40}

    def test_attacking_a_probe_takes_every_step_on_some_images_and_fits_it_again(self, tmp_path: Path) -> None:
        settings: dict[str, Any] = {"eps": [0.25, 0.5], "images": 30, "attack": {"steps": 7}}
        over: dict[str, Any] = {"grid": [{**TINY["grid"][0], "robustness": True}], "robustness": settings}
        of = functools.partial(self.work, tmp_path, "robustness")
        of_probe, of_heads, of_network = (of("eps0_", what, **over) for what in ("probes", "linear_heads", "fixed"))
        assert kinds(of_probe) == kinds(of_heads) == kinds(of_network) == {"forward": 30 * 5, "attack": 30 * 2 * 7}
        classes = image_counts(entry_of(tiny(tmp_path), "datasets", "coarse"), tmp_path).classes  # type: ignore[union-attr]
        assert (of_probe.fitted, of_heads.fitted) == (32 * classes * 100, 0)
        every = of("eps0_", "probes", **{**over, "robustness": {**settings, "images": None}})
        assert kinds(every)["forward"] == 40 * 5
        kept, left = (self.work(tmp_path, "finetuning", "eps0_", "fixed", **one) for one in (over, {}))
        assert kept.written - left.written == size_of("resnet8_w8", 32).weights_bytes(classes)

    def test_few_images_of_a_class_make_few_images(self) -> None:
        counts = ImageCounts(1000, 50, 200, 10, 3072, True)
        assert counts.transfer("final", 0.2, 5) == (50, 50)
        assert counts.transfer("search", 0.2, 5) == (40, 10)
        assert counts.transfer("search", 0.2, None) == (1000, 200)
        assert counts.transfer("fixed", 0.2, None) == (1000, 250)
        assert counts.transfer("fixed", 0.2, 5) == (40, 60)
        assert counts.transfer("final", 0.2, None) == (1200, 50)
        assert counts.transfer("final", 0.2, None, 100) == (100, 50)
        assert counts.transfer("search", 0.2, None, 100) == (80, 20)

    def test_selecting_costs_its_start_alone(self, tmp_path: Path) -> None:
        grid = tiny(tmp_path)
        entry = PlannedEntry("selecting", "x", entry_of(grid, "evaluation").settings)
        assert not work_of(entry, counting(tmp_path)).images

    def test_a_dataset_whose_size_nothing_tells_is_named(self, tmp_path: Path) -> None:
        missing = {"coarse": {"origin": {"kind": "folder", "path": str(tmp_path / "nowhere")}}}
        grid = tiny(tmp_path, datasets=missing)
        with pytest.raises(UnknownImagesError, match="datasets/coarse"):
            work_of(entry_of(grid, "features"), counting(tmp_path))
        made = make_plan(grid)
        assert made.stages["features"].unknown == made.stages["features"].left == 2
        assert any("datasets/coarse" in note for note in made.notes)


@pytest.mark.parametrize("classes", [1, 3, 7])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.9])
def test_as_many_images_are_set_aside_as_the_stages_do(classes: int, fraction: float) -> None:
    for images in (classes, 40, 121):
        labels = np.arange(images) % classes
        assert set_aside(images, classes, fraction) == validation_mask(labels, fraction, 0).sum()


@pytest.mark.parametrize("start", [0.3, 0.57, 1.0])
@pytest.mark.parametrize("side", [16, 32, 48, 64, 160, 224])
def test_sides_are_those_of_training(start: float, side: int) -> None:
    recipe, work = Recipe(epochs=18, start_scale=start, augmentation="none"), Work()
    _train(work, "train", "resnet8_w4", side, recipe, 100)
    seen = Counter(side_at(recipe, epoch, side) for epoch in range(18))
    assert {key.side: images for key, images in work.images.items()} == {at: 100 * n for at, n in seen.items()}


@pytest.mark.parametrize(
    ("architecture", "side"),
    [("resnet8_w16", 32), ("resnet20_w5", 33), ("resnet18", 224), ("vgg16_bn", 160), ("mobilenet_v2", 96),
     ("densenet161", 224), ("wide_resnet50_4", 224), ("shufflenet_v2_x1_0", 224), ("resnet18_cifar", 32),
     ("resnet50_cifar", 40)],
)  # fmt: skip
def test_tables_and_formulas_are_what_the_counter_counts(architecture: str, side: int) -> None:
    known, found = size_of(architecture, side), counted(architecture, side)
    assert (known.dimension, known.parameters, known.buffers) == (found.dimension, found.parameters, found.buffers)
    assert known.flops == pytest.approx(found.flops, rel=1e-9)


def test_other_networks_are_counted() -> None:
    assert size_of("mnasnet0_5", 64) == counted("mnasnet0_5", 64)


class TestImageCounts:
    def dataset(self, tmp_path: Path, origin: dict[str, Any], **settings: Any) -> ImageCounts | None:
        grid = tiny(tmp_path, datasets={"coarse": {"origin": origin, **settings}})
        return image_counts(entry_of(grid, "datasets", "coarse"), tmp_path / "store")

    def test_a_folder_is_listed(self, tmp_path: Path) -> None:
        for split, n in (("train", 4), ("val", 2), ("test", 3)):
            write_folder(tmp_path / "images" / split, {"a": n, "b": n})
        found = self.dataset(tmp_path, {"kind": "folder", "path": str(tmp_path / "images")}, train_limit=6)
        assert found is not None
        assert (found.train, found.validation, found.test, found.classes) == (6, 4, 6, 2)

    def test_parquet_files_are_counted_by_their_rows(self, tmp_path: Path) -> None:
        for split, n in (("train", 9), ("test", 4)):
            write_parquet(tmp_path / "data" / f"{split}.parquet", [b"x"] * n, [i % 3 for i in range(n)])
        found = self.dataset(tmp_path, {"kind": "parquet", "path": str(tmp_path / "data")})
        assert found is not None
        assert (found.train, found.validation, found.test, found.classes) == (9, None, 4, 3)

    def test_torchvisions_are_known_or_said_to_be_unknown(self, tmp_path: Path) -> None:
        by_split = {"train": {"split": "train"}, "test": {"split": "test"}, "validation": {"split": "val"}}
        dtd = self.dataset(tmp_path, {"kind": "torchvision", "dataset": "DTD", "root": "x", **by_split})
        cifar = self.dataset(tmp_path, {"kind": "torchvision", "dataset": "CIFAR10", "root": "x"})
        assert dtd is not None
        assert (dtd.train, dtd.validation, dtd.test, dtd.raw) == (1880, 1880, 1880, False)
        assert cifar is not None
        assert (cifar.total, cifar.classes, cifar.raw) == (60000, 10, True)
        assert self.dataset(tmp_path, {"kind": "torchvision", "dataset": "LSUN", "root": "x"}) is None

    def test_the_catalogue_states_counts_of_complete_copies(self, tmp_path: Path) -> None:
        found = self.dataset(tmp_path, {"kind": "catalogue", "dataset": "dtd"}, test_limit=470)
        assert found is not None
        assert (found.train, found.validation, found.test, found.classes) == (1880, 1880, 470, 47)

    def test_what_is_prepared_says_so_itself(self, tmp_path: Path) -> None:
        grid = tiny(tmp_path)
        finish(grid, "datasets")
        found = image_counts(entry_of(grid, "datasets", "coarse"), tmp_path / "store")
        assert found == ImageCounts(100, 40, None, 8, 1000 / 140, True)


class TestDisk:
    def test_features_are_written_as_large_as_planned(self, tmp_path: Path) -> None:
        grid = tiny(tmp_path)
        work = work_of(entry_of(grid, "features"), counting(tmp_path / "store"))
        for n, name in ((100, "train"), (40, "test")):
            write_features(tmp_path / f"{name}.arrow", np.zeros((n, 32), np.float16), np.zeros(n, np.int64))
        real = sum((tmp_path / f"{name}.arrow").stat().st_size for name in ("train", "test"))
        assert work.written - 12_000 == pytest.approx(real, rel=0.05)

    def test_raw_datasets_are_written_as_large_as_planned(self, tmp_path: Path) -> None:
        grid = tiny(tmp_path)
        entry = entry_of(grid, "datasets", "coarse")
        made = prepared(tmp_path / "real", entry.settings.model_dump()["origin"])
        real = sum(path.stat().st_size for path in made.path.glob("*.arrow"))
        assert work_of(entry, counting(tmp_path / "store")).written - 12_000 == pytest.approx(real, rel=0.05)


class TestWhatIsDone:
    def test_is_subtracted(self, tmp_path: Path) -> None:
        grid = tiny(tmp_path)
        before = make_plan(grid)
        finish(grid, "datasets", "pretraining")
        after = make_plan(grid)
        assert (before.stages["pretraining"].done, before.stages["pretraining"].left) == (0, 2)
        assert (after.stages["pretraining"].done, after.stages["pretraining"].left) == (2, 0)
        assert after.stages["pretraining"].work == Work()
        assert after.stages["features"].work.images == before.stages["features"].work.images
        assert after.total.done + after.total.left == before.total.left

    def test_everything_asked_is_measured_all_the_same(self, tmp_path: Path) -> None:
        grid = tiny(tmp_path)
        images, batches = wanted(grid)
        finish(grid, "datasets", "pretraining")
        assert wanted(grid)[0].keys() == images.keys()
        assert batches[Pass("resnet8_w8", 32, "fp32", "attack")] == 32


def fixed(seconds: float = 0.01) -> Calibrated:
    every = {Pass("resnet8_w8", 32, "fp32", kind): seconds for kind in PASSES}
    return Calibrated("here", every, dict.fromkeys(("features", "probing", "figures"), 2.0), 1e-9, "cpu")


class TestRates:
    def test_resnet50_trains_as_published(self) -> None:
        gpu = published_rates("v100")
        assert 1 / gpu.seconds_per_image(Pass("resnet50", 224, "fp32", "train")) == pytest.approx(gpu.training["fp32"])
        assert not gpu.notes

    def test_passes_and_areas_scale_by_flops(self) -> None:
        gpu = published_rates("A100")
        step = gpu.seconds_per_image(Pass("resnet50", 224, "bf16", "train"))
        assert gpu.seconds_per_image(Pass("resnet50", 224, "bf16", "forward")) == pytest.approx(step / 3)
        assert gpu.seconds_per_image(Pass("resnet50", 112, "bf16", "attack")) == pytest.approx(step / 4 * 2 / 3)

    def test_a_precision_without_a_figure_is_owned_up_to(self) -> None:
        gpu = published_rates("A100")
        key = Pass("resnet50", 224, "tf32", "train")
        assert gpu.seconds_per_image(key._replace(precision="fp32")) == gpu.seconds_per_image(key)
        assert "fp32" in gpu.notes[0]

    def test_every_gpu_has_a_source_and_figures(self) -> None:
        for name in rates.gpu_names():
            gpu = published_rates(name)
            assert gpu.source[0].startswith("https://") or "docs/gpus.md" in gpu.source[0]
            assert gpu.training
            assert set(gpu.training) <= {"fp32", "tf32", "bf16"}
            assert all(50 < rate < 10_000 for rate in gpu.training.values())

    def test_unknown_gpus_are_refused_with_those_there_are(self) -> None:
        with pytest.raises(RateError, match=r"did you mean RTX-4090.*V100, A100"):
            published_rates("RTX 4091")

    def test_hours_and_prices_are_arithmetic(self, tmp_path: Path) -> None:
        made = make_plan(tiny(tmp_path), [fixed()], prices=[3.0], cores=2)
        images = sum(made.stages["finetuning"].work.images.values())
        hours = made.stages["finetuning"].hours["here"]
        assert hours.device == pytest.approx((images * 0.01 + 2 * 2.0) / 3600)
        assert hours.price == pytest.approx(3 * hours.device)
        assert made.total.hours["here"].price == pytest.approx(3 * made.total.hours["here"].device)

    def test_no_number_of_cores_beats_the_longest_chain(self, tmp_path: Path) -> None:
        two, many = (make_plan(tiny(tmp_path), [fixed()], cores=cores) for cores in (2, 10_000))
        assert many.wall["here"] == many.longest["here"] < two.wall["here"]

    def test_what_was_not_measured_is_scaled_from_what_is_most_like_it(self) -> None:
        found = fixed()
        larger = Pass("resnet8_w8", 64, "fp32", "train")
        assert found.seconds_per_image(larger) == pytest.approx(0.04)
        assert found.notes

    @pytest.mark.parametrize(
        ("asked", "message"),
        [({"gpus": ["A100"], "prices": [-1.0]}, "from 0 up"), ({"gpus": ["A100"], "prices": [1.0, 2.0]}, "for each"),
         ({"prices": [1.0]}, "for each"), ({"gpus": ["X1"]}, "no published rate"), ({"cores": 0}, "at least 1"),
         ({"calibration": Path("nowhere.json")}, "no such file")],
    )  # fmt: skip
    def test_bad_questions_are_refused(self, asked: dict[str, Any], message: str) -> None:
        with pytest.raises(RateError, match=message):
            run_plan([], **asked)


class TestReport:
    def made(self, tmp_path: Path) -> Plan:
        return make_plan(tiny(tmp_path), [published_rates("A100"), published_rates("V100")], prices=[2.0, 1.0])

    def test_the_table_has_a_line_a_stage_and_a_total_that_lines_up(self, tmp_path: Path) -> None:
        made = self.made(tmp_path)
        lines = table(made).splitlines()
        rows = lines[2 : lines.index("", 2)]
        assert len({len(line) for line in rows}) == 1
        assert [line.split()[0] for line in rows if not line.startswith("-")] == ["stage", *made.stages, "total"]
        assert "A100 h" in rows[0]
        assert rows[0].count("core-h") == 1

    def test_it_says_whose_rates_they_are(self, tmp_path: Path) -> None:
        assert "not measured here" in table(self.made(tmp_path))
        assert "depthwise" in table(self.made(tmp_path))

    def test_json_has_the_same_numbers(self, tmp_path: Path) -> None:
        found = json.loads(json.dumps(as_json(self.made(tmp_path))))
        stages = found["stages"].values()
        assert found["total"]["left"] == sum(stage["left"] for stage in stages)
        assert found["total"]["flops"] == sum(stage["flops"] for stage in stages)
        price = sum(stage["hours"]["A100"]["price"] or 0 for stage in stages)
        assert found["total"]["hours"]["A100"]["price"] == pytest.approx(price)

    def test_without_rates_work_is_shown_and_hours_are_offered(self, tmp_path: Path) -> None:
        text = table(make_plan(tiny(tmp_path)))
        assert "--calibrate" in text
        assert "FLOPs" in text


THOUSANDS = """
import sys, time
from pathlib import Path
from robust_transfer.planning.command import run_plan
started = time.monotonic()
text = run_plan([Path(sys.argv[1])], gpus=["A100"], prices=[2])
print(text.splitlines()[-8:], file=sys.stderr)
assert "torch" not in sys.modules, "torch was imported"
print(time.monotonic() - started, [line.split()[2] for line in text.splitlines() if line.startswith("total")][0])
"""


def test_thousands_of_entries_are_planned_in_seconds_without_torch(tmp_path: Path) -> None:
    names = ["resnet18", "resnet50", "wide_resnet50_2", "wide_resnet50_4"]
    part = {
        "architectures": names,
        "eps": [0, 0.01, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 3, 5],
        "transfer_seeds": [*range(11)],
    }
    overlay = {
        "extends": "default",
        "input_size": 224,
        "store": str(tmp_path),
        "finetuning": {"learning_rates": [0.1, 0.01]},
        "grid": [part],
        "figures": {"widths": []},
    }
    (tmp_path / "large.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run(
        [sys.executable, "-c", THOUSANDS, tmp_path / "large.yaml"],
        env={"PYTHONPATH": str(ROOT / "workflow")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seconds, entries = done.stdout.split()
    assert int(entries) > 5000
    assert float(seconds) < 5


class TestCalibration:
    def test_a_tiny_network_is_measured_kept_and_read_again(self, tmp_path: Path) -> None:
        asked = {Pass("resnet8_w1", 16, "fp32", kind): 100.0 for kind in PASSES}
        found = calibrate(asked, dict.fromkeys(asked, 8), cap_seconds=60, slot_seconds=0.2, starts=False)
        assert found.passes.keys() == asked.keys()
        assert all(0 < seconds < 1 for seconds in found.passes.values())
        rates.save_calibration(found, tmp_path / "here.json")
        assert rates.read_calibration(tmp_path / "here.json") == found

    def test_a_process_that_fails_says_why(self) -> None:
        with pytest.raises(RateError, match="fp9"):
            calibrate({Pass("resnet8_w1", 16, "fp9", "train"): 1.0}, {}, starts=False)

    def test_several_processes_count_on_average(self) -> None:
        row = Pass("resnet8_w1", 16, "fp32", "train")._asdict()
        found = [
            {"name": "x", "torch": "2", "starts": {"features": s}, "fitted_seconds": s,
             "passes": [{**row, "seconds_per_image": s}]} for s in (1.0, 3.0)
        ]  # fmt: skip
        mean = _mean(found, "cpu")
        assert [*mean.passes.values(), *mean.starts.values(), mean.fitted_seconds] == [2.0, 2.0, 2.0]

    @pytest.mark.faults  # half a minute: every stage's smallest job, one after the other
    def test_the_smallest_job_of_every_stage_is_run(self) -> None:
        found = start_seconds(Pass("resnet8_w1", 16, "fp32", "train"), "cpu")
        assert found.keys() == ALL_STAGES.keys() - {"importing"}
        assert all(seconds > 0.1 for seconds in found.values())
        assert found["probing"] < found["features"]  # it imports no torch

    def test_probes_are_timed(self) -> None:
        assert 0 < fitted_seconds(images=60, dimension=8, classes=3) < 1e-3

    def test_a_file_that_is_no_calibration_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "bad.json").write_text("[1, 2]")
        with pytest.raises(RateError, match="not a calibration"):
            rates.read_calibration(tmp_path / "bad.json")


def test_the_work_of_every_stage_is_counted() -> None:
    assert WORK.keys() == STAGES.keys()
