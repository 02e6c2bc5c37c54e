"""The grid: names, hashes and what an experiment consists of."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from robust_transfer.configuration.load import ConfigurationError, load, merge, validate
from robust_transfer.configuration.transfer import PROTOCOLS
from robust_transfer.dag.experiment_file import describe
from robust_transfer.dag.grid import Grid, plan
from robust_transfer.dag.wiring import Wiring
from robust_transfer.tables.key import Measurement, MeasurementKey, canonical
from robust_transfer.tables.results import KEY
from support.paths import ROOT

SMALL = {
    "experiment": "small",
    "input_size": 32,
    "datasets": {
        "objects": {"origin": {"kind": "shapes", "task": "objects", "train": 100, "test": 50}},
        "coarse": {"origin": {"kind": "shapes", "task": "coarse", "train": 100, "test": 50}},
        "fine": {"origin": {"kind": "shapes", "task": "fine", "train": 100, "test": 50}},
    },
    "source": "objects",
    "targets": ["coarse", "fine"],
    "grid": [{"architectures": ["resnet8_w8"], "eps": [0, 0.25]}],
    "pretraining": {
        "training": {"augmentation": "crop-flip", "colour_jitter": 0, "lighting": 0, "batchnorm_group": None},
    },
}

# Golden: an entry made under one of these hashes must be found again for ever. Lines may be added, never changed.
GOLDEN = {
    "datasets/objects": "e5a3ac5c94",
    "pretraining/objects_resnet8_w8_eps0_seed0": "3b999535bc",
    "evaluation/objects_resnet8_w8_eps0_seed0": "a1ae403afd",
    "datasets/coarse": "14525d21f8",
    "granularity/coarse_12px": "27ab24a444",
    "datasets/fine": "88cfca144a",
    "granularity/fine_12px": "742593001c",
    "pretraining/objects_resnet8_w8_l2_eps0.25_seed0": "fc4b20764f",
    "evaluation/objects_resnet8_w8_l2_eps0.25_seed0": "6455723430",
    "features/objects_resnet8_w8_l2_eps0.25_seed0_on_fine": "9bbd6ecd45",
    "probing/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_seed0": "a064d1be86",
    "knn/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_seed0": "afac8f023b",
    "finetuning/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_lr0.01_seed0": "226cdf93e1",
    "finetuning/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_lr0.001_seed0": "973ad486b7",
    "finetuning/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_refit_seed0": "2113fe1740",
}

# The same for what came later: settings of the generator, and one rate fixed beforehand.
GOLDEN_LATER = {
    "datasets/objects": "c2d28bccd5",
    "finetuning/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_lr0.01_fixed_seed0": "5adf36c712",
}
# Stylized views, and what is trained on them.
GOLDEN_STYLIZED = {
    "stylizing/fine_stylized": "7f12c88ea5",
    "evaluation/objects_resnet8_w8_eps0_seed0_on_objects_stylized": "b16c95cb17",
    "pretraining/objects_resnet8_w8_stylized_seed0": "f50f3336a5",
    "pretraining/objects_resnet8_w8_both_seed0": "329b9207e2",
    "pretraining/objects_resnet8_w8_both-then-native_seed0": "a59f0cb65d",
}
# Of cue conflict: drawn images, files, outputs that decide, and a probe.
GOLDEN_GALLERIES = {
    "gallery/objects_resnet8_w8_eps0_seed0": "e101a95df0",
    "gallery/objects_resnet8_w8_l2_eps0.25_seed0": "71c5a3c0fa",
}
# Of attacked models, and what keeps its weights for them.
GOLDEN_ATTACKED = {
    "linear_heads/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_drift_target_search_seed0": "2a5dc10192",
    "linear_heads/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_drift_target_final_seed0": "4de71b4a2f",
    "selecting/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_drift_target_linear_heads_seed0": "913e6b99b2",
    "finetuning/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_lr0.01_seed0": "226cdf93e1",
    "finetuning/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_lr0.001_seed0": "973ad486b7",
    "finetuning/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_refit_seed0": "a596291532",
    "robustness/objects_resnet8_w8_l2_eps0.25_seed0_probes_l2": "497e7f130a",
    "robustness/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_drift_target_linear_heads_seed0_l2": "ccf64c9fd6",
    "robustness/objects_resnet8_w8_l2_eps0.25_seed0_on_fine_refit_seed0_l2": "b19aef3169",
}
GOLDEN_CONFLICTS = {
    "drawn conflicts/cue_conflict": "ef550a983c",
    "drawn cue_conflict/objects_resnet8_w8_l2_eps0.25_seed0": "b09fe7c37d",
    "probed conflicts/cue_conflict": "3a3779891c",
    "probed cue_conflict/objects_resnet8_w8_l2_eps0.25_seed0": "9813862914",
}
# Of the default experiment as it stands in config.yaml: they change where its values do, and nowhere else.
GOLDEN_DEFAULT = {
    "datasets/objects": "12b7f0da00",
    "pretraining/objects_resnet8_w16_l2_eps0.4_seed2": "60e9b4c25f",
    "granularity/fine_9px": "9ba623a2cb",
}


def planned(**over: object) -> Grid:
    configuration = yaml.safe_load(yaml.safe_dump(SMALL))
    merge(configuration, over)
    return plan(validate(configuration))


def counts(grid: Grid) -> Counter[str]:
    return Counter(entry.stage for entry in grid.entries.values())


def hashes(grid: Grid) -> set[str]:
    return set(grid.entries)


def test_smaller_images_that_are_enlarged_make_datasets_of_their_own() -> None:
    part = {**SMALL["grid"][0], "views": [12], "modes": ["fixed-feature"]}  # type: ignore[index]
    kept, stated = planned(grid=[part]), planned(grid=[part], granularity={"smaller": "keep"})
    enlarged = planned(grid=[part], granularity={"smaller": "enlarge"})
    assert hashes(stated) == hashes(kept)
    assert not {*kept.stage("granularity")} & {*enlarged.stage("granularity")}
    assert {*kept.stage("datasets")} == {*enlarged.stage("datasets")}


def test_counts_of_a_small_experiment() -> None:
    assert counts(planned()) == {
        "datasets": 3,
        "pretraining": 2,
        "evaluation": 2,
        "features": 4,
        "probing": 4,
        "finetuning": 2 * 2 * (2 + 1),  # backbones × targets × (learning rates + the refit)
    }


def test_the_papers_grid_has_the_papers_counts() -> None:
    """PROTOCOL: 12 datasets × 40 backbones: 480 fixed-feature jobs and 960 full-network runs, beside their refits."""
    targets = [f"target{i}" for i in range(12)]
    datasets = {name: {"origin": {"kind": "folder", "path": name}} for name in [*targets, "imagenet"]}
    part = {
        "architectures": ["resnet18", "resnet50", "wide_resnet50_2", "wide_resnet50_4"],
        "eps": [0, 0.01, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 3, 5],
    }
    grid = planned(source="imagenet", targets=targets, datasets=datasets, input_size=224, grid=[part])
    searches = [entry for entry in grid.stage("finetuning").values() if "_refit_" not in entry.name]
    assert counts(grid)["pretraining"] == 40
    assert counts(grid)["probing"] == 480
    assert len(searches) == 960


def paper_protocol(**over: object) -> Grid:
    part = {
        **SMALL["grid"][0],  # type: ignore[index]
        "modes": ["fixed-feature"],
        "protocols": ["paper"],
    }
    return planned(**{"grid": [part], **over})


def test_the_papers_selection_takes_one_job_for_fixed_feature_and_one_a_rate_for_full_network() -> None:
    part = {**SMALL["grid"][0], "protocols": ["paper"]}  # type: ignore[index]
    backbones, targets, rates = 2, 2, 2
    found = counts(planned(grid=[part], selection=["test"]))
    assert found["linear_heads"] == backbones * targets
    assert found["finetuning"] == backbones * targets * rates
    assert found["selecting"] == 2 * backbones * targets
    both = counts(planned(grid=[part], selection=["validation", "test"]))
    assert both["linear_heads"] == 2 * found["linear_heads"]
    assert both["finetuning"] == 2 * found["finetuning"]
    assert both["selecting"] == found["selecting"]


def test_both_selections_share_the_searches_of_one() -> None:
    one, both = planned(), planned(selection=["validation", "test"])
    searches = {entry.id for entry in one.stage("finetuning").values() if "_refit_" not in entry.name}
    assert searches <= hashes(both)
    choice = next(entry for entry in both.stage("selecting").values())
    assert sorted(choice.inputs) == ["final0", "final1", "search0", "search1"]


def test_variants_are_named_by_what_deviates_from_the_paper() -> None:
    variants = [{}, {"batchnorm": "frozen"}, {"normalisation": "source"}, {"batchnorm": "drift"}]
    part = {**SMALL["grid"][0], "protocols": ["paper"], "variants": variants}  # type: ignore[index]
    keys = [measured.key for measured in planned(grid=[part]).measurements.values()]
    fixed = [key.variant for key in keys if key.mode == "fixed-feature"]
    assert Counter(fixed) == {"{}": 4, '{"batchnorm":"frozen"}': 4, '{"normalisation":"source"}': 4}
    full = [key.variant for key in keys if key.mode == "full-network"]
    assert Counter(full) == {'{"normalisation":"source"}': 4}


ATTACK = {"norm": "linf", "eps": "4/255", "steps": 2}


def adversarial(variants: list[dict[str, Any]], **over: Any) -> Grid:
    """A grid with an attack in both sections, measured in both modes under these variants."""
    part = {**SMALL["grid"][0], "protocols": ["paper"], "variants": variants}  # type: ignore[index]
    sections = {"linear_heads": {"attack": ATTACK}, "finetuning": {"attack": ATTACK}}
    return planned(**{"grid": [part], **sections, **over})


def variants_of(grid: Grid) -> set[tuple[str, str]]:
    return {(one.key.mode, one.key.variant) for one in grid.measurements.values() if one.key.mode != "source"}


def test_the_settings_of_the_literature_stand_side_by_side() -> None:
    """Each in its own mode, told apart by a short name; standard ones under the keys that they have without others."""
    settings = [{"setting": name} for name in ("standard-head", "adversarial-head", "adversarial-full")]
    grid = adversarial(settings)
    said = '"attack":"linf 4/255, 2 steps"'
    assert variants_of(grid) == {
        ("fixed-feature", "{}"),
        ("fixed-feature", f'{{{said},"setting":"adversarial-head"}}'),
        ("full-network", f'{{{said},"normalisation":"source","setting":"adversarial-full"}}'),
    }
    keys = [one.key for one in grid.measurements.values()]
    assert len(set(keys)) == len(keys)
    standard = adversarial([{"setting": "standard-head"}], linear_heads={}, finetuning={})
    plain = planned(grid=[{**SMALL["grid"][0], "protocols": ["paper"], "modes": ["fixed-feature"]}])  # type: ignore[index]
    assert hashes(standard) == hashes(plain) < hashes(grid)


def test_heads_under_attack_are_jobs_of_their_own() -> None:
    """Each sees images perturbed against itself, so that none share a pass."""
    grid = adversarial([{"setting": "adversarial-head"}])
    heads = [entry.settings for entry in grid.stage("linear_heads").values()]
    assert len(heads) == 2 * 2 * 2 * 2  # backbones, targets, learning rates, purposes
    assert {(one.learning_rates, one.attack.eps) for one in heads} == {((0.01,), "4/255"), ((0.001,), "4/255")}  # type: ignore[attr-defined]
    choice = next(iter(grid.stage("selecting").values()))
    assert sorted(choice.inputs) == ["final0", "final1", "search0", "search1"]


def test_what_chooses_is_measured_by_searches_alone() -> None:
    choose = {"attack": ATTACK, "choose_by": "attacked"}
    grid = adversarial([{}], linear_heads=choose, finetuning=choose)
    for stage in ("linear_heads", "finetuning"):
        found = {(one.settings.purpose, one.settings.chosen_under is not None) for one in grid.stage(stage).values()}  # type: ignore[attr-defined]
        chooses = {"linear_heads": "final", "finetuning": "refit"}[stage]
        assert found == {("search", True), (chooses, stage == "finetuning")}
    assert {one.settings.chosen_at for one in grid.stage("selecting").values()} == {("4/255",)}  # type: ignore[attr-defined]
    assert all('"choose_by":"attacked at linf 4/255"' in variant for _, variant in variants_of(grid))


def test_a_variant_changes_where_fine_tuning_starts_and_what_it_trains() -> None:
    changes: list[dict[str, Any]] = [
        {"head": "probe", "learning_rates": [0.003, 0.002, 0.001]},
        {"trainable": "head", "batchnorm": "frozen"},
        {"trainable": {"last_blocks": 2}, "attack": ATTACK},
    ]
    part = {**SMALL["grid"][0], "modes": ["full-network"], "variants": [{}, *({"finetuning": one} for one in changes)]}  # type: ignore[index]
    grid = planned(grid=[part])
    shared = '"normalisation":"source"'
    assert variants_of(grid) == {
        ("full-network", variant)
        for variant in (
            f"{{{shared}}}",
            f'{{"head":"probe",{shared}}}',
            f'{{"batchnorm":"frozen",{shared},"trainable":"head"}}',
            f'{{"attack":"linf 4/255, 2 steps",{shared},"setting":"adversarial-full","trainable":"last 2 blocks"}}',
        )
    }
    by_start = {frozenset(entry.inputs) & {"probe", "features"} for entry in grid.stage("finetuning").values()}
    assert by_start == {frozenset(), frozenset({"probe", "features"})}
    rates = {entry.settings.learning_rates for entry in grid.stage("finetuning").values() if "probe" in entry.inputs}  # type: ignore[attr-defined]
    assert rates == {(0.003,), (0.002,), (0.001,), (0.003, 0.002, 0.001)}
    probes = {entry.inputs["probe"].id for entry in grid.stage("finetuning").values() if "probe" in entry.inputs}
    assert probes <= hashes(planned())
    assert not [one for one in grid.measurements.values() if one.stage == "probing"]


def test_more_last_blocks_than_a_network_has_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    def wiring(blocks: int) -> Wiring:
        over = {"trainable": {"last_blocks": blocks}}
        return Wiring(planned(store=str(tmp_path / "store"), results=str(tmp_path), finetuning=over))

    wiring(3).check_networks()
    with pytest.raises(ConfigurationError, match=r"finetuning.trainable = {last_blocks: 4}: resnet8_w8 has 3 blocks"):
        wiring(4).check_networks()


def test_optimiser_and_weight_decay_of_fine_tuning_are_deviations() -> None:
    training = {"optimiser": "adamw", "weight_decay": 0.05, "epochs": 3}
    found = variants_of(planned(finetuning={"training": training}))
    said = '{"normalisation":"source","optimiser":"adamw","weight_decay":"0.05"}'
    assert found == {("fixed-feature", "{}"), ("full-network", said)}


def test_target_normalisation_is_the_datasets() -> None:
    cifar = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    grid = paper_protocol(datasets={"fine": {"normalisation": cifar}})
    by_target = {entry.inputs["dataset"].name: entry.settings for entry in grid.stage("linear_heads").values()}
    assert by_target["fine"].normalisation.mean == (0.5, 0.5, 0.5)  # type: ignore[attr-defined]
    assert by_target["coarse"].normalisation.std == (1.0, 1.0, 1.0)  # type: ignore[attr-defined]
    assert hashes(grid) - hashes(paper_protocol()) <= {i for i in hashes(grid) if "_on_fine_" in i}
    assert hashes(planned(datasets={"fine": {"normalisation": cifar}})) == hashes(planned())


def test_few_images_are_entries_of_their_own_on_shared_features() -> None:
    part = {**SMALL["grid"][0], "images_per_class": [5, 10, "all"]}  # type: ignore[index]
    grid, before = planned(grid=[part]), planned()
    assert hashes(before) <= hashes(grid)
    assert counts(grid)["features"] == counts(before)["features"]
    assert counts(grid)["probing"] == (5 + 5 + 1) * counts(before)["probing"]  # five draws of few, and all of them once
    keys = [measured.key for measured in grid.measurements.values() if measured.key.mode == "fixed-feature"]
    assert {(key.images_per_class, key.transfer_seed) for key in keys} == {
        *((few, seed) for few in (5, 10) for seed in range(5)),
        (None, 0),
    }
    once = planned(grid=[part | {"transfer_seeds": [0]}])
    assert counts(once)["probing"] == 3 * counts(before)["probing"]
    assert hashes(once) <= hashes(grid)
    assert counts(planned(grid=[part | {"transfer_seeds": [3, 4]}]))["probing"] == 3 * 2 * counts(before)["probing"]
    transfers = [measured.key for measured in grid.measurements.values() if measured.key.mode != "source"]
    assert {key.images_per_class for key in transfers} == {5, 10, None}


def test_images_counted_in_total_are_entries_beside_those_counted_by_class() -> None:
    part = {**SMALL["grid"][0], "images_per_class": [5, "all"]}  # type: ignore[index]
    both, by_class = planned(grid=[part | {"training_images": [100, 40]}]), planned(grid=[part])
    assert hashes(by_class) < hashes(both)
    assert counts(both)["probing"] == (5 + 1 + 2 * 5) / (5 + 1) * counts(by_class)["probing"]
    keys = [one.key for one in both.measurements.values() if one.key.mode == "fixed-feature"]
    assert {(key.images_per_class, key.training_images) for key in keys} == {
        (5, None), (None, None), (None, 100), (None, 40)
    }  # fmt: skip
    few = [entry for entry in both.stage("probing").values() if "_100images_seed" in entry.name]
    assert {(e.settings.images_per_class, e.settings.training_images) for e in few} == {(None, 100)}  # type: ignore[attr-defined]
    assert {entry.settings.training_images for entry in by_class.stage("probing").values()} == {None}  # type: ignore[attr-defined]


def test_the_layer_that_features_are_from_is_in_the_key_of_numbers_made_from_them() -> None:
    part = {**SMALL["grid"][0], "protocols": ["frozen", "knn"], "views": ["native", 8]}  # type: ignore[index]
    grid = planned(grid=[part], features={"layer": "blocks.0"})
    variants = {
        (one.key.protocol, one.key.variant) for one in grid.measurements.values() if one.key.mode == "fixed-feature"
    }
    said = {'{"layer":"blocks.0"}', '{"downscaled":8,"layer":"blocks.0"}'}
    assert variants == {(protocol, variant) for protocol in ("frozen", "knn") for variant in said}
    others = [one.key.variant for one in grid.measurements.values() if one.key.mode != "fixed-feature"]
    assert others
    assert not any("layer" in variant for variant in others)


def test_knn_is_measured_beside_the_probe_on_the_same_features() -> None:
    part = {**SMALL["grid"][0], "modes": ["fixed-feature"], "images_per_class": [5, "all"]}  # type: ignore[index]
    frozen, both = planned(grid=[part]), planned(grid=[{**part, "protocols": ["frozen", "knn"]}])
    assert hashes(frozen) < hashes(both)
    assert {planned.stage for i, planned in both.entries.items() if i not in frozen.entries} == {"knn"}
    keys = [measured.key for measured in both.measurements.values() if measured.key.mode != "source"]
    by_protocol = {
        protocol: [replace(key, protocol=None) for key in keys if key.protocol == protocol] for protocol in PROTOCOLS
    }
    assert by_protocol["knn"] == by_protocol["frozen"]
    assert len(by_protocol["knn"]) == 2 * 2 * (5 + 1)  # backbones × targets × subsets: five of few images, all of them
    assert not by_protocol["paper"]
    settings = next(iter(both.stage("knn").values())).settings
    assert (settings.images_per_class, settings.selections) == (5, ("validation",))  # type: ignore[attr-defined]


def test_settings_of_neighbours_reach_their_own_stage_alone() -> None:
    part = {**SMALL["grid"][0], "protocols": ["frozen", "knn"]}  # type: ignore[index]
    before, after = planned(grid=[part]), planned(grid=[part], knn={"weights": "uniform", "neighbours": [1, 3]})
    assert {entry.partition("/")[0] for entry in hashes(after) - hashes(before)} == {"knn"}
    assert hashes(planned(grid=[part], knn={"temperature": 0.07})) == hashes(before)


def test_parts_that_share_entries_do_them_once() -> None:
    part = SMALL["grid"][0]  # type: ignore[index]
    assert hashes(planned(grid=[part, part])) == hashes(planned())


def test_names_are_read_by_people() -> None:
    names = {entry.name for entry in planned(grid=[{**SMALL["grid"][0], "views": ["native", 12]}]).entries.values()}  # type: ignore[index]
    assert {
        "objects",
        "coarse_12px",
        "objects_resnet8_w8_eps0_seed0",
        "objects_resnet8_w8_l2_eps0.25_seed0",
        "objects_resnet8_w8_l2_eps0.25_seed0_on_fine_12px_seed0",
        "objects_resnet8_w8_eps0_seed0_on_coarse_lr0.01_seed0",
        "objects_resnet8_w8_eps0_seed0_on_coarse_refit_seed0",
    } <= names


def test_linf_fractions_make_names_without_slashes() -> None:
    grid = planned(grid=[{"architectures": ["resnet8_w8"], "norm": "linf", "eps": ["4/255"]}])
    assert "objects_resnet8_w8_linf_eps4of255_seed0" in {entry.name for entry in grid.entries.values()}


def test_every_entry_comes_after_its_inputs() -> None:
    seen: set[str] = set()
    for entry in planned().entries.values():
        assert {made_from.id for made_from in entry.inputs.values()} <= seen
        seen.add(entry.id)


@pytest.mark.parametrize("eps", [0.25, "0.25", "0.250", "2.5e-1"])
def test_spellings_of_an_eps_are_one_backbone(eps: object) -> None:
    assert hashes(planned(grid=[{"architectures": ["resnet8_w8"], "eps": [0, eps]}])) == hashes(planned())


def test_a_setting_at_its_default_changes_no_hash() -> None:
    stated = planned(
        pretraining={"training": {"momentum": 0.9, "label_smoothing": 0.0}, "attack": {"use_best": True}},
        features={"dtype": "float16"},
        probing={"solver": "lbfgs"},
        datasets={"fine": {"exif_rotation": True, "train_limit": None}},
    )
    assert hashes(stated) == hashes(planned())


def test_a_single_rate_takes_one_job_and_several_a_search_each_and_a_refit() -> None:
    def finetuning(*rates: float, **over: object) -> list[str]:
        found = planned(finetuning={"learning_rates": [*rates]}, **over).stage("finetuning").values()
        return [entry.settings.purpose for entry in found]  # type: ignore[attr-defined]

    pairs = 2 * 2
    assert finetuning(0.1) == ["fixed"] * pairs
    assert Counter(finetuning(0.1, 0.01)) == {"search": 2 * pairs, "refit": pairs}
    assert finetuning(0.1, selection=["test"]) == ["final"] * pairs
    assert Counter(finetuning(0.1, selection=["validation", "test"])) == {"search": pairs, "final": pairs}


def test_a_fixed_run_is_measured_and_chooses_from_no_others() -> None:
    grid = planned(finetuning={"learning_rates": [0.1]})
    measured = [grid.entries[one.entry] for one in grid.measurements.values() if one.key.mode == "full-network"]
    assert measured == [*grid.stage("finetuning").values()]
    assert all(sorted(entry.inputs) == ["backbone", "dataset"] and not entry.runs for entry in measured)
    assert "objects_resnet8_w8_eps0_seed0_on_fine_lr0.1_fixed_seed0" in {entry.name for entry in measured}


def test_labels_and_figures_change_no_hash() -> None:
    stated = planned(title="Other", datasets={"fine": {"label": "Fine"}}, figures={"draw": ["headline"]}, results="r")
    assert hashes(stated) == hashes(planned())


def changed_stages(**over: object) -> set[str]:
    before, after = planned(), planned(**over)
    return {entry.partition("/")[0] for entry in hashes(after) - hashes(before)}


def test_a_change_reaches_what_hangs_on_it_and_nothing_else() -> None:
    everything_trained = {"pretraining", "evaluation", "features", "probing", "finetuning"}
    assert changed_stages(probing={"standardise": False}) == {"probing"}
    assert changed_stages(probing={"solver": "scikit-learn"}) == {"probing"}
    assert changed_stages(features={"dtype": "float32"}) == {"features", "probing"}
    assert changed_stages(finetuning={"training": {"epochs": 3}}) == {"finetuning"}
    assert changed_stages(evaluation={"attack": {"steps": 50}}) == {"evaluation"}
    assert changed_stages(pretraining={"training": {"epochs": 3}}) == everything_trained
    assert changed_stages(datasets={"fine": {"metric": "mean_per_class"}}) == {"probing", "finetuning"}


def test_the_attack_defines_robust_backbones_only() -> None:
    before, after = planned(), planned(pretraining={"attack": {"steps": 7}})
    made_anew = {entry.name for i, entry in after.entries.items() if i not in before.entries}
    assert made_anew
    assert not any("_eps0_" in name for name in made_anew)


def test_one_more_learning_rate_keeps_the_searches_made() -> None:
    before, after = planned(), planned(finetuning={"learning_rates": [0.01, 0.001, 0.0001]})
    made_anew = {entry.name for i, entry in after.entries.items() if i not in before.entries}
    assert all("_refit_" in name or "_lr0.0001_" in name for name in made_anew)


def test_table_keys_differ() -> None:
    grid = planned(grid=[{**SMALL["grid"][0], "views": ["native", 8, 12], "seeds": [0, 1], "transfer_seeds": [0, 1]}])  # type: ignore[index]
    keys = [measured.key for measured in grid.measurements.values()]
    assert len(set(keys)) == len(keys) > 50


def test_the_experiment_file_lists_keys_as_the_results_table_has_them() -> None:
    more = {"protocols": ["frozen", "paper"], "views": ["native", 12], "images_per_class": [5, "all"]}
    grid = planned(grid=[{**SMALL["grid"][0], **more}])  # type: ignore[index]
    listed = json.loads(json.dumps(describe(grid)["entries"]))
    assert [Measurement.from_json(one) for one in listed] == [*grid.measurements.values()]
    full = {"normalisation": "source"}
    expected = [{}, {"downscaled": 12}, full, {"downscaled": 12, **full}]
    assert {canonical(one["variant"]) for one in listed} == {*map(canonical, expected)}
    names = [field.name for field in fields(MeasurementKey)]
    assert list(KEY) == ["experiment", *names, "attack", "test_set", "split", "selection", "metric"]
    assert {*names} < {*listed[0]}


def test_the_default_experiment_keeps_to_its_budget() -> None:
    """Each job that imports torch costs 3 s of processor time before it works; probing on a CPU imports none.

    There were 96 at 32 pixels and under PGD of two steps. Images of 24 pixels and one step pay for a few more, and 13
    are Figure 8's. Eleven jobs of cue_conflict came later, which do little but start, three galleries of 8 s each, and
    three attacks on probes of 5 s each.
    """
    grid = plan(validate(yaml.safe_load((ROOT / "config.yaml").read_text())))
    with_torch = {"stylizing", "pretraining", "evaluation", "features", "linear_heads", "finetuning"}
    assert sum(counts(grid)[stage] for stage in with_torch) <= 110 + 13
    assert counts(grid)["cue_conflict"] <= 11
    assert counts(grid)["gallery"] <= 3
    assert counts(grid)["robustness"] <= 3


def test_a_setting_added_since_an_entry_was_written_is_no_changed_default(tmp_path: Path) -> None:
    wiring = Wiring(planned(store=str(tmp_path / "store"), results=str(tmp_path / "results")))
    wiring.write_entries()
    path = next((tmp_path / "store" / "pretraining").iterdir()) / "entry.json"
    described = json.loads(path.read_text())
    del described["settings"]["training"]["colour_jitter"]
    path.write_text(json.dumps(described))
    wiring.write_entries()
    described["settings"]["training"]["momentum"] = 0.5
    path.write_text(json.dumps(described))
    with pytest.raises(ConfigurationError, match=r"made with training.momentum = 0.5, .* now reads as 0.9: a default"):
        wiring.write_entries()


@pytest.mark.parametrize("entry", sorted(GOLDEN))
def test_golden_hashes(entry: str) -> None:
    assert by_name(planned_golden())[entry] == GOLDEN[entry]


@pytest.mark.parametrize("entry", sorted(GOLDEN_LATER))
def test_golden_hashes_of_later_settings(entry: str) -> None:
    world = {"classes": 12, "misleading": 0.08, "twins": 0.67}
    grid = planned(datasets={"objects": {"origin": world}}, finetuning={"learning_rates": [0.01]})
    assert by_name(grid)[entry] == GOLDEN_LATER[entry]


@pytest.mark.parametrize("entry", sorted(GOLDEN_DEFAULT))
def test_golden_hashes_of_the_default_experiment(entry: str) -> None:
    assert by_name(plan(load([])))[entry] == GOLDEN_DEFAULT[entry]


def by_name(grid: Grid) -> dict[str, str]:
    return {f"{entry.stage}/{entry.name}": entry.hash for entry in grid.entries.values()}


def planned_golden() -> Grid:
    part = {**SMALL["grid"][0], "views": ["native", 12]}  # type: ignore[index]
    return planned(grid=[part, {**part, "modes": ["fixed-feature"], "protocols": ["knn"]}])


@pytest.mark.parametrize(
    ("grid", "fixed"),
    [
        ([{"architectures": ["resnet8_w8"], "eps": [0, 0.1, 0.5, 1]}], {"l2": "0.5"}),  # the middle one
        ([{"architectures": ["resnet8_w8"], "eps": [0, 0.1, 0.5]}], {"l2": "0.1"}),
        (
            [
                {"architectures": ["resnet8_w8"], "eps": [0, 0.1, 0.5, 1]},
                {"architectures": ["resnet8_w12"], "eps": [0, 1], "seeds": [0, 1]},
            ],
            {"l2": "1"},  # three networks
        ),
        (
            [
                {"architectures": ["resnet8_w8"], "eps": [0, 0.1, 0.5, 1]},
                {"architectures": ["resnet8_w8"], "eps": [0, 0.1], "views": [16]},  # the same networks again
            ],
            {"l2": "0.5"},
        ),
    ],
)
def test_the_eps_that_is_fixed_beforehand_is_that_of_most_networks(grid, fixed):
    assert describe(planned(grid=grid))["fixed_eps"] == fixed


# Stylized views, and backbones that are trained on them

STYLIZED = {
    "grid": [
        {**SMALL["grid"][0], "views": ["native", "stylized"], "source_views": ["native", "stylized"]},  # type: ignore[index]
        {"architectures": ["resnet8_w8"], "eps": [0], "trained_on": "both-then-native", "modes": ["fixed-feature"]},
        {"architectures": ["resnet8_w8"], "eps": [0], "trained_on": "stylized", "modes": []},
    ]
}


@pytest.mark.parametrize("entry", sorted(GOLDEN_STYLIZED))
def test_golden_hashes_of_stylized_views(entry: str) -> None:
    assert by_name(planned(**STYLIZED))[entry] == GOLDEN_STYLIZED[entry]


def test_a_stylized_view_is_a_dataset_like_a_downscaled_one() -> None:
    grid = planned(**STYLIZED)
    views = {entry.name: entry for entry in grid.stage("stylizing").values()}
    assert set(views) == {"objects_stylized", "coarse_stylized", "fine_stylized"}
    assert all([*entry.inputs] == ["dataset"] for entry in views.values())  # each image in the style of another one
    assert {"features/objects_resnet8_w8_eps0_seed0_on_fine_stylized"} < by_name(grid).keys()


def test_styles_of_a_dataset_are_one_more_input_which_is_prepared() -> None:
    paintings = {"origin": {"kind": "folder", "path": "paintings", "labelled": False}}
    grid = planned(**STYLIZED, datasets={"paintings": paintings}, stylizing={"method": "adain", "styles": "paintings"})
    for entry in grid.stage("stylizing").values():
        assert {role: one.name for role, one in entry.inputs.items()} | {"dataset": ""} == {
            **{"dataset": "", "styles": "paintings"}
        }
        assert (entry.settings.side, entry.settings.alpha) == (32, 1.0)  # type: ignore[attr-defined]


def test_the_stylized_source_is_tested_without_an_attack_and_told_apart_by_its_variant() -> None:
    grid = planned(**STYLIZED)
    of = {one.entry: one.key for one in grid.measurements.values() if one.stage == "evaluation"}
    native = {entry: key for entry, key in of.items() if key.variant == "{}"}
    stylized = {entry: key for entry, key in of.items() if key.variant == '{"stylized":"phase"}'}
    assert len(native) == 2 + 2  # standard, robust, both texture-robust ones
    assert len(stylized) == 2
    for entry in stylized:
        planned_entry = grid.entries[entry]
        assert planned_entry.settings.eps == ()  # type: ignore[attr-defined]
        assert planned_entry.inputs["source"].stage == "stylizing"
    keys = [measured.key for measured in grid.measurements.values()]
    assert len(set(keys)) == len(keys)


def test_texture_robust_backbones_are_trained_one_from_the_other() -> None:
    trained = {entry.name: entry for entry in planned(**STYLIZED).stage("pretraining").values()}
    inputs = {name: {role: one.name for role, one in entry.inputs.items()} for name, entry in trained.items()}
    start = "objects_resnet8_w8_eps0_seed0"
    assert inputs["objects_resnet8_w8_stylized_seed0"] == {"source": "objects_stylized", "start": start}
    assert inputs["objects_resnet8_w8_both_seed0"] == {
        **{"source": "objects", "stylized": "objects_stylized", "start": start}
    }
    last = inputs["objects_resnet8_w8_both-then-native_seed0"]
    assert last == {"source": "objects", "start": "objects_resnet8_w8_both_seed0"}
    schedules = {name: entry.settings.training for name, entry in trained.items() if "eps" not in name}  # type: ignore[attr-defined]
    found = {
        name.split("_")[-2]: (one.epochs, one.learning_rate, one.step_epochs, one.batch_size, one.weight_decay)
        for name, one in schedules.items()
    }
    assert found == {  # as published
        "stylized": (60, 0.1, 20, 256, 1e-4),
        "both": (45, 0.1, 15, 256, 1e-4),
        "both-then-native": (60, 0.01, 30, 256, 1e-4),
    }


def test_from_scratch_or_from_imported_weights() -> None:
    part = {"architectures": ["resnet18"], "eps": [0], "trained_on": "both", "modes": []}
    scratch = planned(grid=[part], pretraining={"texture_robust": {"start": "scratch"}})
    (alone,) = scratch.stage("pretraining").values()  # no standard one, which nobody needs
    assert [*alone.inputs] == ["source", "stylized"]
    weights = {"theirs": {"kind": "torchvision"}}
    imported = planned(grid=[{**part, "backbones": "theirs"}], weights=weights)
    (started,) = imported.stage("pretraining").values()
    assert started.inputs["start"].stage == "importing"
    (measured,) = imported.measurements.values()
    assert (measured.key.recipe, measured.backbone) == ("texture-robust-both", started.id)


def test_what_is_stated_of_a_schedule_counts_over_the_published_one() -> None:
    stated = {"texture_robust": {"both": {"epochs": 2, "precision": "bf16"}}}
    (trained,) = (
        entry.settings.training  # type: ignore[attr-defined]
        for entry in planned(**STYLIZED, pretraining=stated).stage("pretraining").values()
        if entry.name.endswith("_both_seed0")
    )
    assert (trained.epochs, trained.precision, trained.batch_size, trained.step_epochs) == (2, "bf16", 256, 15)


def test_stylizing_and_texture_robustness_re_key_nothing() -> None:
    before, after = planned(), planned(**STYLIZED)
    assert hashes(before) < hashes(after)
    assert hashes(planned(stylizing={"seed": 3}, pretraining={"texture_robust": {"start": "scratch"}})) == hashes(
        before
    )


def test_the_stylized_source_can_be_transferred_to() -> None:
    part = {**SMALL["grid"][0], "transfer_to_source": ["stylized"], "targets": ["fine"]}  # type: ignore[index]
    grid = planned(grid=[part])
    keys = [one.key for one in grid.measurements.values() if one.key.mode != "source"]
    on_source = [key for key in keys if key.target == "objects"]
    assert {(key.mode, key.variant) for key in on_source} == {
        ("fixed-feature", '{"stylized":"phase"}'),
        ("full-network", '{"normalisation":"source","stylized":"phase"}'),
    }
    assert {key.target for key in keys} == {"objects", "fine"}


def test_figures_are_told_which_recipes_are_texture_robust() -> None:
    assert "texture_robust" not in describe(planned())
    assert describe(planned(**STYLIZED))["texture_robust"] == {
        "texture-robust-stylized": "texture-robust, stylized images",
        "texture-robust-both-then-native": "texture-robust, stylized + native, then native",
    }
    weights = {"geirhos": {"kind": "stylized-imagenet", "trained_on": "sin"}}
    part = {"architectures": ["resnet50"], "eps": [0], "backbones": "geirhos", "modes": []}
    imported = describe(planned(grid=[part], weights=weights))
    assert imported["texture_robust"] == {"geirhos": "texture-robust, geirhos"}
    assert imported["on_stylized_imagenet"] == ["geirhos"]
    weights["geirhos"]["trained_on"] = "sin-and-in"
    assert "on_stylized_imagenet" not in describe(planned(grid=[part], weights=weights))


def test_networks_trained_here_are_like_those_of_stylized_imagenet_where_images_were_stylized_as_theirs() -> None:
    assert "on_stylized_imagenet" not in describe(planned(**STYLIZED))
    stylizing = {"method": "adain", "styles": "fine"}
    like_theirs = describe(planned(**STYLIZED, stylizing=stylizing))
    assert like_theirs["on_stylized_imagenet"] == ["texture-robust-stylized"]


def confronted(images: dict[str, object], **section: object) -> Grid:
    return planned(cue_conflict={"images": images, **section})


PROBE = {"coarse": {"a": ["shape 1"]}, "fine": {"b": ["variant 1"], "c": ["variant 2"]}}


@pytest.mark.parametrize("entry", sorted(GOLDEN_CONFLICTS))
def test_golden_hashes_of_cue_conflict(entry: str) -> None:
    drawn, probed = confronted({"kind": "shapes"}), confronted({"kind": "folder", "path": "stimuli"}, probe=PROBE)
    found = {f"drawn {name}": value for name, value in by_name(drawn).items()}
    found |= {f"probed {name}": value for name, value in by_name(probed).items()}
    assert found[entry] == GOLDEN_CONFLICTS[entry]


def test_cue_conflict_adds_one_entry_for_each_backbone_and_changes_none() -> None:
    without, drawn = planned(), confronted({"kind": "shapes"})
    assert hashes(without) < hashes(drawn)
    assert counts(drawn) - counts(without) == {"conflicts": 1, "cue_conflict": 2}
    off = planned(cue_conflict={"images": {"kind": "shapes"}}, grid=[{**SMALL["grid"][0], "cue_conflict": False}])  # type: ignore[index]
    assert hashes(off) == hashes(without)
    keys = [measured.key for measured in drawn.measurements.values() if measured.stage == "cue_conflict"]
    assert {(key.target, key.mode, key.protocol, key.variant) for key in keys} == {
        ("cue_conflict", "cue-conflict", None, "{}")
    }
    assert len(set(keys)) == 2


def test_a_probe_shares_the_features_of_transfer() -> None:
    native = [{**SMALL["grid"][0], "modes": ["fixed-feature"]}]  # type: ignore[index]
    section = {"images": {"kind": "folder", "path": "stimuli"}, "probe": PROBE}
    with_probe = planned(grid=native, cue_conflict=section)
    assert counts(with_probe)["features"] == counts(planned(grid=native))["features"]
    [entry, _] = with_probe.stage("cue_conflict").values()
    assert [*entry.runs] == ["features0", "features1"]
    assert [entry.inputs[role].inputs["dataset"].name for role in entry.runs] == ["coarse", "fine"]
    dropped = plan(with_probe.experiment, without=["fine"])
    assert counts(dropped)["cue_conflict"] == 0


def test_figures_of_other_numbers_are_drawn_anew_where_those_change(monkeypatch):
    plain = describe(planned())
    assert {"drawn_from", "published", "norm"}.isdisjoint(plain)
    other = describe(planned(figures={"source": "published", "norm": "l2"}))
    assert (other["drawn_from"], other["norm"]) == ("published", "l2")
    assert {name: value for name, value in other.items() if name in plain} == plain
    monkeypatch.setattr("robust_transfer.dag.experiment_file.digest_of_published", lambda: "others")
    assert describe(planned(figures={"source": "published"}))["published"] != other["published"]


def exhibited(part: Mapping[str, object] | None = None, **over: object) -> Grid:
    return planned(grid=[{**SMALL["grid"][0], "gallery": True, **(part or {})}], **over)  # type: ignore[index]


def test_golden_hashes_of_galleries() -> None:
    found = {name: value for name, value in by_name(exhibited()).items() if name.startswith("gallery/")}
    assert found == GOLDEN_GALLERIES


def test_galleries_add_one_entry_for_each_backbone_of_the_first_seed_and_change_none() -> None:
    seeds: dict[str, object] = {"seeds": [3, 5]}
    without, shown = exhibited({**seeds, "gallery": False}), exhibited(seeds)
    assert hashes(without) < hashes(shown)
    assert counts(shown) - counts(without) == {"gallery": 2}
    assert {entry.inputs["backbone"].settings.seed for entry in shown.stage("gallery").values()} == {3}  # type: ignore[attr-defined]
    assert counts(exhibited(seeds, gallery={"seeds": 2}))["gallery"] == 4
    keys = [measured.key for measured in shown.measurements.values() if measured.stage == "gallery"]
    assert {(key.target, key.mode, key.protocol, key.variant) for key in keys} == {("objects", "gallery", None, "{}")}
    assert counts(plan(shown.experiment, without=["objects"]))["gallery"] == 0


def test_all_networks_of_a_norm_are_attacked_at_the_same_radii() -> None:
    def radii(grid: Grid) -> set[tuple[str, ...]]:
        return {entry.settings.perturbations for entry in grid.stage("gallery").values()}  # type: ignore[attr-defined]

    assert radii(exhibited({"eps": [0, 1, 0.25]})) == {("0.25", "1")}
    assert radii(exhibited({"eps": [0]}, gallery={"perturbations": [2, 0.5]})) == {("0.5", "2")}


def test_a_standard_network_of_parts_in_two_norms_has_one_gallery() -> None:
    part = {**SMALL["grid"][0], "gallery": True}  # type: ignore[index]
    both = planned(grid=[{**part, "eps": [0, 0.5]}, {**part, "norm": "linf", "eps": [0, "4/255"]}])
    norms = sorted(entry.settings.norm for entry in both.stage("gallery").values())  # type: ignore[attr-defined]
    assert norms == ["l2", "l2", "linf"]


def attacked(*parts: Mapping[str, object], **over: object) -> Grid:
    usual = {**SMALL["grid"][0], "robustness": True}  # type: ignore[index]
    return planned(grid=[{**usual, **part} for part in parts or ({},)], **{"robustness": {"eps": [0.5]}, **over})


def test_golden_hashes_of_attacked_models() -> None:
    grid = attacked({"protocols": ["frozen", "paper"], "targets": ["fine"], "eps": [0.25]})
    kept = ("robustness/", "finetuning/", "linear_heads/", "selecting/")
    assert {name: value for name, value in by_name(grid).items() if name.startswith(kept)} == GOLDEN_ATTACKED


def test_attacks_change_no_entry_but_keep_weights_of_what_was_trained() -> None:
    part: dict[str, object] = {"protocols": ["frozen", "paper", "knn"], "views": ["native", 12]}
    without, with_attacks = attacked({**part, "robustness": False}), attacked(part)
    again = {entry.stage for i, entry in with_attacks.entries.items() if i not in without.entries}
    assert again == {"robustness", "linear_heads", "finetuning", "selecting"}
    gone = {entry for entry in without.entries if entry not in with_attacks.entries}
    assert {name.partition("/")[0] for name in gone} == {"linear_heads", "finetuning", "selecting"}
    keeping = [entry for entry in with_attacks.entries.values() if getattr(entry.settings, "keep_weights", False)]
    assert {(entry.stage, entry.settings.purpose) for entry in keeping} == {  # type: ignore[attr-defined]
        ("linear_heads", "final"), ("finetuning", "refit"),
    }  # fmt: skip


def test_probes_of_a_backbone_are_attacked_together_and_other_models_alone() -> None:
    grid = attacked({"protocols": ["frozen", "paper", "knn"], "transfer_seeds": [0, 1]})
    entries = grid.stage("robustness").values()
    models = {
        entry.name: [one.stage for role, one in entry.inputs.items() if role.startswith("model")] for entry in entries
    }
    backbones, targets, seeds = 2, 2, 2
    together = [stages for name, stages in models.items() if name.endswith("_probes_l2")]
    assert together == [["probing"] * targets * seeds] * backbones
    alone = [stages for name, stages in models.items() if not name.endswith("_probes_l2")]
    assert (
        sorted(alone) == [["finetuning"]] * backbones * targets * seeds + [["selecting"]] * backbones * targets * seeds
    )
    for entry in entries:
        for role, one in entry.inputs.items():
            needed = {name: of for name, of in one.inputs.items() if name == "features" or name.startswith("final")}
            assert not role.startswith("model") or {of.id for of in needed.values()} <= {
                of.id for of in entry.inputs.values()
            }


def test_a_part_asks_for_the_protocols_that_it_has() -> None:
    parts: list[dict[str, object]] = [
        {"protocols": ["frozen", "paper"], "robustness": False},
        {"modes": ["fixed-feature"]},
    ]
    for protocol, stage in (("frozen", "probing"), ("paper", "selecting")):
        grid = attacked(parts[0], {**parts[1], "protocols": [protocol]})
        assert {entry.inputs["model0"].stage for entry in grid.stage("robustness").values()} == {stage}
        kept = [entry for entry in grid.entries.values() if getattr(entry.settings, "keep_weights", False)]
        assert {entry.stage for entry in kept} == ({"linear_heads"} if protocol == "paper" else set())


def test_probes_on_a_layer_are_left_out() -> None:
    grid = attacked({"modes": ["fixed-feature", "full-network"]}, features={"layer": "blocks.0"})
    entries = grid.stage("robustness").values()
    assert {entry.inputs["model0"].stage for entry in entries} == {"finetuning"}


def test_under_autoattack_every_model_has_a_job_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    grid = attacked({"modes": ["fixed-feature"]}, robustness={"eps": [0.5], "autoattack": True})
    assert counts(grid)["robustness"] == 2 * 2
    assert all(
        [role for role in entry.inputs if role.startswith("model")] == ["model0"]
        for entry in grid.stage("robustness").values()
    )


def test_what_two_parts_share_is_attacked_once_whichever_asks() -> None:
    asking: dict[str, object] = {"eps": [0.25], "targets": ["fine"]}
    one = attacked(asking)
    for parts in ([{"robustness": False}, asking], [asking, {"robustness": False}], [asking, asking]):
        grid = attacked(*parts)
        assert grid.stage("robustness").keys() == one.stage("robustness").keys()
        assert len({entry.name for entry in grid.stage("finetuning").values()}) == counts(grid)["finetuning"]
        keys = [measured.key for measured in grid.measurements.values() if measured.model is None]
        assert len(set(keys)) == len(keys)


def test_a_standard_network_is_attacked_in_the_norm_of_each_part_that_asks() -> None:
    parts: list[dict[str, object]] = [{"eps": [0, 0.5]}, {"norm": "linf", "eps": [0, "4/255"]}]
    grid = attacked(*parts, robustness={"eps": [0.1]})
    of = Counter((entry.inputs["backbone"].name, entry.settings.norm) for entry in grid.stage("robustness").values())  # type: ignore[attr-defined]
    assert {norm for name, norm in of if "eps0_" in name} == {"l2", "linf"}
    assert {norm for name, norm in of if "l2" in name} == {"l2"}
    fixed = attacked(*parts, robustness={"eps": ["8/255"], "norm": "linf"})
    assert {entry.settings.norm for entry in fixed.stage("robustness").values()} == {"linf"}  # type: ignore[attr-defined]


def test_attacked_models_have_the_keys_of_their_transfers() -> None:
    grid = attacked({"protocols": ["frozen", "paper"], "views": ["native", 12], "images_per_class": [5, "all"]})
    transfers = {
        one.entry: one.key for one in grid.measurements.values() if one.model is None and one.stage != "evaluation"
    }
    of_models = {one.model: one.key for one in grid.measurements.values() if one.model is not None}
    assert of_models == transfers
    listed = json.loads(json.dumps(describe(grid)["entries"]))
    assert [Measurement.from_json(one) for one in listed] == [*grid.measurements.values()]
    assert len(grid.measuring) == len({one.entry for one in grid.measurements.values()})


def test_the_attack_is_that_of_the_evaluation_unless_one_is_stated() -> None:
    evaluation = {"attack": {"steps": 7}}
    usual, own = (
        next(iter(grid.stage("robustness").values())).settings.attack.steps  # type: ignore[attr-defined]
        for grid in (
            attacked(evaluation=evaluation),
            attacked(evaluation=evaluation, robustness={"eps": [1], "attack": {"steps": 3}}),
        )
    )
    assert (usual, own) == (7, 3)
