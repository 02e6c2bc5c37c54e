"""Wrong configurations, each with what its message must say: one table for every way in which files are read."""

import datetime
from typing import Any

NO_WIDTHS: dict[str, Any] = {"figures": {"widths": [], "fixed_eps": None}}


def grid(**part: object) -> dict[str, Any]:
    block = {"architectures": ["resnet8_w8"], "eps": [0, 0.25], **part}
    return {"grid": [block], **NO_WIDTHS}


def parquet(**changes: object) -> dict[str, Any]:
    return {"datasets": {"coarse": {"origin": {"kind": "parquet", "path": "x"}, **changes}}}


def imported(weights: dict[str, Any], **part: object) -> dict[str, Any]:
    """A grid whose backbones come from these weights, called `mine`."""
    return {"weights": {"mine": weights}, **grid(**{"backbones": "mine", "eps": [0], **part})}


def from_files(path: str, **part: object) -> dict[str, Any]:
    return imported({"kind": "files", "path": path}, **part)


def long_names(source: str, weights: str, target: str) -> dict[str, Any]:
    """An experiment whose names are allowed one by one."""
    datasets = {name: {"origin": {"kind": "folder", "path": path}} for name, path in ((source, "x"), (target, "y"))}
    return {
        "datasets": datasets,
        "source": source,
        "targets": [target],
        "weights": {weights: {"kind": "files", "path": "x.pt"}},
        **grid(backbones=weights, eps=[0]),
    }


def also_on(target: str, *datasets: str) -> dict[str, Any]:
    return {"also_test_on": {target: [{"dataset": dataset} for dataset in datasets]}}


Mistake = tuple[dict[str, Any], list[str]]

MISTAKES: list[Mistake] = [
    ({"gallery": {"images": 1}}, ["gallery.images = 1"]),
    ({"gallery": {"perturbations": [0, 1]}}, ["gallery.perturbations", "a radius of 0 perturbs nothing"]),
    ({"gallery": {"inversion": {"start": "grey"}}}, ["gallery.inversion.start", "noise"]),
    (
        {"gallery": {"perturbations": ["4/255"]}, **grid(gallery=True)},
        ["gallery.perturbations = 4/255", "only norm linf takes"],
    ),
    (grid(eps=[0], gallery=True), ["grid[0].gallery", "no radius to attack at", "perturbations: [0.5]"]),
    (
        {"robustness": {"eps": []}, **grid(robustness=True)},
        ["grid[0].robustness", "no radius to attack at", "robustness: {eps: [0.5]}"],
    ),
    ({"robustness": {"eps": [0, 0.5]}}, ["robustness.eps", "a radius of 0 is no attack"]),
    ({"robustness": {"eps": [0.5, 0.50]}}, ["robustness.eps", "names a radius twice"]),
    (
        {"robustness": {"eps": ["4/255"]}, **grid(robustness=True)},
        ["robustness.eps = 4/255", "only norm linf takes", "grid[0] are attacked in norm l2", "robustness.norm: linf"],
    ),
    (also_on("objects", "fine"), ["also_test_on.objects: not a target", "targets names coarse, fine, textures"]),
    (also_on("coarse", "fein"), ["also_test_on.coarse[0].dataset = fein: no such dataset", "coarse, fine"]),
    (also_on("coarse", "coarse"), ["also_test_on.coarse[0].dataset = coarse: the target itself"]),
    (also_on("coarse", "fine", "fine"), ["also_test_on.coarse[1].dataset = fine: named twice"]),
    ({"also_test_on": {"coarse": [{"dataset": "fine", "classes": {}}]}}, ["also_test_on.coarse[0].classes"]),
    (
        {"figures": {"predictors": ["shape_bais"]}},
        ["figures.predictors[0] = shape_bais: no such property of backbones", "did you mean shape_bias?"],
    ),
    ({"figures": {"predictors": ["shape_bias", "shape_bias"]}}, ["figures.predictors", "named twice: shape_bias"]),
    ({"cue_conflict": {"images": {"kind": "shape"}}}, ["cue_conflict.images", "shapes"]),
    ({"cue_conflict": {"images": {"kind": "shapes", "images": 2}}}, ["cue_conflict.images", "images = 2"]),
    ({"cue_conflict": {"classes": ["cat", "dog"]}}, ["cue_conflict.classes", "at least 3"]),
    ({"cue_conflict": {"classes": ["cat", "dog", "cat"]}}, ["classes names a class twice"]),
    ({"cue_conflict": {"probe": {"furs": {"cat": ["cat"]}}}}, ["probe.furs: no such dataset", "coarse"]),
    ({"cue_conflict": {"probe": {"coarse": {"cat": ["a"], "dog": ["a"]}}}}, ["probe.coarse: a named twice"]),
    (
        {"cue_conflict": {"classes": ["cat", "dog", "car"], "probe": {"coarse": {"bear": ["shape 1"]}}}},
        ["cue_conflict.probe.coarse.bear: not one of cue_conflict.classes"],
    ),
    (
        {"source": "fine", "targets": ["coarse"], "cue_conflict": {"images": {"kind": "shapes"}}, **grid()},
        ["cue_conflict.images.kind = shapes", "fine is none", "folder or parquet"],
    ),
    ({"epoch": 3}, ["epoch = 3", "unknown key", "known here: experiment"]),
    ({"pretraining": {"traning": {}}}, ["pretraining.traning", "did you mean training?"]),
    ({"pretraining": {"training": {"epochs": 0}}}, ["pretraining.training.epochs = 0", "greater than 0", "Passes"]),
    ({"pretraining": {"training": {"epochs": 2.5}}}, ["pretraining.training.epochs = 2.5", "integer"]),
    ({"pretraining": {"training": {"epochs": True}}}, ["epochs = true", "not a switch"]),
    ({"pretraining": {"training": {"learning_rate": "fast"}}}, ["learning_rate = fast", "number"]),
    ({"pretraining": {"training": {"learning_rate": float("inf")}}}, ["learning_rate = inf", "finite"]),
    ({"pretraining": {"training": {"momentum": 1.0}}}, ["pretraining.training.momentum = 1.0", "less than 1"]),
    ({"pretraining": {"training": {"schedule": "onecycle"}}}, ["schedule = onecycle", "did you mean one-cycle?"]),
    ({"pretraining": {"training": {"augmentation": "crop"}}}, ["augmentation = crop", "crop-flip"]),
    ({"pretraining": {"training": {"precision": "fp16"}}}, ["precision = fp16", "fp32, tf32 or bf16"]),
    ({"pretraining": {"training": {"nesterov": True, "momentum": 0}}}, ["pretraining.training", "momentum above 0"]),
    ({"pretraining": {"training": {"batchnorm_group": 100}}}, ["batchnorm_group 100 does not divide batch_size 32"]),
    ({"pretraining": {"training": {"batchnorm_group": 1}}}, ["batchnorm_group = 1", "greater than or equal to 2"]),
    ({"pretraining": {"attack": {"steps": 0}}}, ["pretraining.attack.steps = 0", "Gradient steps"]),
    ({"pretraining": {"attack": {"restarts": 3, "random_start": False}}}, ["restarts: 3", "random_start: true"]),
    ({"pretraining": {"recipe": "fast", "training": {"batch_size": 100}}}, ["batchnorm_group 64 does not divide"]),
    ({"stylizing": {"method": "style"}}, ["stylizing.method = style", "phase, adain or texture-swap"]),
    ({"stylizing": {"method": "adain"}}, ["stylizing", "takes its styles from a dataset", "painter-by-numbers"]),
    ({"stylizing": {"method": "phase", "styles": "nowhere"}}, ["stylizing.styles = nowhere", "no such dataset"]),
    ({"stylizing": {"styles": "fine"}}, ["styles = fine", "texture-swap draws textures itself"]),
    ({"stylizing": {"method": "phase", "alpha": 0.5}}, ["alpha is not read with method: phase"]),
    ({"stylizing": {"method": "adain", "styles": "fine", "alpha": 2}}, ["stylizing.alpha = 2", "1"]),
    (grid(views=["stylized"]), ["grid[0].views = stylized of coarse", "texture-swap is for task objects", "`phase`"]),
    (
        {"datasets": {"objects": {"stored_side": 20}}} | grid(source_views=["stylized"]),
        ["grid[0].source_views = stylized of objects", "draws images at origin.side, 24", "leave out stored_side"],
    ),
    (grid(trained_on="both"), ["grid[0]", "trained_on = both", "eps: [0]"]),
    (grid(trained_on="painted", eps=[0]), ["grid[0].trained_on = painted", "both-then-native"]),
    (grid(transfer_to_source=["native"]), ["transfer_to_source: native are the images that backbones are trained on"]),
    (grid(source_views=[24]), ["grid[0].source_views[0] = 24", "smaller than input_size"]),
    (
        {"pretraining": {"recipe": "texture-robust-both", "training": {"epochs": 2}}},
        ["pretraining.recipe = texture-robust-both", "take another"],
    ),
    (
        {"datasets": {"coarse": {"origin": {"kind": "folder", "path": "x", "labelled": False}}}},
        ["datasets.coarse.origin: images without classes", "and targets[0] is coarse"],
    ),
    ({"pretraining": {"training": {"start_scale": 0}}}, ["start_scale = 0", "share of `input_size`"]),
    ({"pretraining": {"training": {"average_decay": 1}}}, ["average_decay = 1", "less than 1"]),
    ({"running": {"save_seconds": -1}}, ["running.save_seconds = -1", "greater than or equal to 0"]),
    ({"pretraining": {"recipe": "My Recipe"}}, ["pretraining.recipe = My Recipe", "pattern"]),
    (grid(eps=[0, -1]), ["grid[0].eps[1] = -1", "0 (standard training) or a positive radius"]),
    (grid(eps=[0, "abc"]), ["grid[0].eps[1] = abc", "4/255"]),
    (grid(eps=[0, "4/254"]), ["grid[0].eps[1] = 4/254", "fraction of 255"]),
    (grid(eps=["4/255"]), ["grid[0]", "4/255 is a fraction of 255, which only norm: linf takes"]),
    (grid(eps=[8], norm="linf"), ["grid[0]", "write 8/255"]),
    (grid(eps=[0.1, 0.10]), ["grid[0].eps", "named twice: 0.1"]),
    (grid(eps=[]), ["grid[0].eps", "at least 1"]),
    (grid(eps=[float("nan")]), ["grid[0].eps[0] = nan", "positive radius"]),
    (grid(norm="l1"), ["grid[0].norm = l1", "l2 or linf"]),
    (grid(seeds=[-1]), ["grid[0].seeds[0] = -1", "greater than or equal to 0"]),
    (grid(targets=["flowers"]), ["grid[0].targets[0] = flowers", "not a target; targets names coarse"]),
    (grid(modes=["full"]), ["grid[0].modes[0] = full", "fixed-feature or full-network"]),
    (grid(views=[24]), ["grid[0].views[0] = 24", "smaller than input_size 24", "use 8, 12 or 16"]),
    (grid(views=["small"]), ["grid[0].views[0] = small", "`native` or a short side in pixels"]),
    (grid(architectures=["resnet_18"]), ["grid[0].architectures[0] = resnet_18", "did you mean resnet18"]),
    (grid(architectures=["resnet9_w16"]), ["grid[0].architectures[0] = resnet9_w16", "6n + 2", "resnet8_w16"]),
    ({"grid": []}, ["grid", "at least 1"]),
    ({"source": "imagenet"}, ["source = imagenet", "no such dataset; datasets defines coarse"]),
    ({"targets": ["coarse", "coarse"]}, ["targets = coarse, coarse", "named twice"]),
    ({"targets": []}, ["targets", "at least 1"]),
    ({"input_size": 4}, ["input_size = 4", "greater than or equal to 16"]),
    ({"experiment": "a/b"}, ["experiment = a/b", "pattern"]),
    ({"datasets": {"coarse": {"origin": {"kind": "zip"}}}}, ["no such kind of origin: zip", "parquet"]),
    ({"datasets": {"new": {"origin": {"path": "x"}}}}, ["datasets.new.origin", "says no kind"]),
    ({"datasets": {"new": {"origin": {"kind": "parquet"}}}}, ["datasets.new.origin.path", "required and not there"]),
    ({"datasets": {"new": {"origin": {"kind": "folder", "path": "x", "split": 1}}}}, ["origin.split", "unknown key"]),
    ({"datasets": {"coarse": {"stored_side": 64}}}, ["datasets.coarse", "above the generator's side 24"]),
    ({"datasets": {"coarse": {"train_limit": 0}}}, ["datasets.coarse.train_limit = 0", "At most this many"]),
    ({"datasets": {"coarse": {"metric": "accuracy"}}}, ["datasets.coarse.metric = accuracy", "mean_per_class"]),
    ({"datasets": {"my set": {"origin": {"kind": "folder", "path": "x"}}}}, ["my set", "pattern"]),
    ({"datasets": {"coarse": {"label": "a\x1b[2J"}}}, ["datasets.coarse.label", r"control character '\x1b'"]),
    ({"title": "a\x07b"}, ["title", r"control character '\x07'; write text alone"]),
    ({"probing": {"strengths": [0.1, 0]}}, ["probing.strengths[1] = 0", "greater than 0"]),
    ({"probing": {"strengths": [0.1, 0.1]}}, ["probing", "strengths names a value twice"]),
    ({"probing": {"solver": "liblinear"}}, ["probing.solver = liblinear", "write lbfgs or scikit-learn"]),
    ({"knn": {"neighbours": [0]}}, ["knn.neighbours[0] = 0", "greater than 0"]),
    ({"knn": {"neighbours": [5, 5]}}, ["knn", "neighbours names a number twice"]),
    ({"knn": {"weights": "uniform", "temperature": 0.1}}, ["knn", "temperature is not read with weights: uniform"]),
    ({"probing": {"validation_fraction": 1}}, ["probing.validation_fraction = 1", "less than 1"]),
    *(
        ({"finetuning": {"trainable": wrong}}, ["finetuning.trainable", "write all, head, or {last_blocks: 2}"])
        for wrong in ("body", {"last_blocks": 0}, {"blocks": 2}, 3, None)
    ),
    ({"finetuning": {"trainable": True}}, ["finetuning.trainable = true", "not a switch; write all or head"]),
    ({"finetuning": {"head": "fresh"}}, ["finetuning.head = fresh", "random or probe"]),
    ({"finetuning": {"batchnorm": "drift"}}, ["finetuning.batchnorm = drift", "train or frozen"]),
    ({"finetuning": {"head": "probe", "normalisation": "target"}}, ["finetuning", "set normalisation: source"]),
    (
        {"finetuning": {"head": "probe"}, "features": {"layer": "blocks.0"}},
        ["head = probe", "features.layer says blocks.0; leave that out"],
    ),
    ({"finetuning": {"attack": {"steps": 3}}}, ["finetuning.attack.eps", "required and not there"]),
    ({"finetuning": {"attack": {"eps": 0}}}, ["finetuning.attack", "without an attack; leave `attack` out"]),
    ({"finetuning": {"attack": {"eps": "4/255"}}}, ["finetuning.attack", "only norm: linf takes"]),
    ({"linear_heads": {"attack": {"eps": 4, "norm": "linf"}}}, ["linear_heads.attack", "write 4/255?"]),
    (
        {"finetuning": {"attack": {"eps": 0.5, "ramp_start": 0.5, "ramp_end": 0.25}}},
        ["finetuning.attack", "ramp_start 0.5 is after ramp_end 0.25"],
    ),
    (
        {"linear_heads": {"attack": {"eps": 0.5}, "head_seeds": [0, 1]}},
        ["linear_heads", "every head is a training of its own; name one seed"],
    ),
    ({"linear_heads": {"training": {"optimiser": "adamw"}}}, ["linear_heads", "finetuning` with trainable: head"]),
    (
        {"finetuning": {"training": {"optimiser": "adamw", "nesterov": True}}},
        ["finetuning.training", "nesterov: true is of optimiser: sgd"],
    ),
    (
        {"finetuning": {"learning_rates": [0.1, 0.2], "choose_by": "attacked"}},
        ["finetuning", "state chosen_under.eps"],
    ),
    (
        {"finetuning": {"learning_rates": [0.1, 0.2], "choose_by": "expected", "chosen_under": {"eps": [1]}}},
        ["finetuning", "state two or more as chosen_under.eps"],
    ),
    (
        {"finetuning": {"learning_rates": [0.1, 0.2], "choose_by": "attacked", "chosen_under": {"eps": [0, 1]}}},
        ["finetuning", "for several write expected"],
    ),
    ({"finetuning": {"chosen_under": {"eps": [1]}}}, ["finetuning", "not read with choose_by: clean"]),
    ({"finetuning": {"chosen_under": {"eps": [0]}}}, ["finetuning.chosen_under", "nothing is attacked"]),
    (
        {"finetuning": {"learning_rates": [0.1], "choose_by": "attacked", "attack": {"eps": 1}}},
        ["finetuning", "there is one learning rate, so nothing is chosen"],
    ),
    (
        {
            "finetuning": {"learning_rates": [0.1, 0.2], "choose_by": "attacked", "attack": {"eps": 1}},
            "selection": ["test"],
        },
        ["finetuning.choose_by = attacked", "set selection: [validation]"],
    ),
    (
        grid(variants=[{"setting": "adversarial-full"}]),
        ["grid[0].variants[0]: setting = adversarial-full: under which attack", "finetuning: {attack: {eps: …}}"],
    ),
    (
        grid(variants=[{"setting": "adversarial-head"}]),
        ["grid[0].variants[0].setting = adversarial-head", "set modes: [fixed-feature] and protocols: [paper]"],
    ),
    (
        grid(variants=[{}, {"finetuning": {"choose_by": "expected"}}]),
        ["grid[0].variants[1]: finetuning.", "there is one learning rate"],
    ),
    ({"finetuning": {"learning_rates": []}}, ["finetuning.learning_rates", "at least 1"]),
    ({"finetuning": {"training": {"learning_rate": 1.0}}}, ["finetuning", "list the rates in learning_rates"]),
    ({"figures": {"draw": ["headlines"]}}, ["figures.draw[0] = headlines", "did you mean headline?"]),
    ({"figures": {"source": "theirs"}}, ["figures.source = theirs", "write ours, published or both"]),
    ({"figures": {"source": "both"}}, ["figures.source = both", "published of the source imagenet", "write ours"]),
    ({"figures": {"norm": "l1"}}, ["figures.norm = l1", "write l2 or linf"]),
    ({"figures": {"fixed_eps": 7}}, ["figures.fixed_eps = 7", "not a robust eps of the grid"]),
    ({"figures": {"widths": ["resnet50"]}}, ["figures.widths[0] = resnet50", "not in the grid"]),
    ({"selection": ["train"]}, ["selection[0] = train", "validation"]),
    ({"preprocessing": {"resize_ratio": 0.5}}, ["preprocessing.resize_ratio = 0.5", "greater than or equal to 1"]),
    ({"pretraining": "fast"}, ["pretraining = fast", "dictionary", "known: recipe, training, attack, check"]),
    # A single value where a list is to stand, and the other way round.
    (grid(eps=3), ["grid[0].eps = 3", "write a list: [3]", "Radii"]),
    (grid(eps="0, 3"), ["grid[0].eps = 0, 3", "write a list: [0, 3]"]),
    (grid(seeds=3), ["grid[0].seeds = 3", "write a list: [3]", "Seeds of pretraining"]),
    (grid(modes="fixed-feature"), ["grid[0].modes = fixed-feature", "write a list: [fixed-feature]"]),
    (grid(views=12), ["grid[0].views = 12", "write a list: [12]"]),
    (grid(images_per_class=10), ["grid[0].images_per_class = 10", "write a list: [10]"]),
    (grid(variants={}), ["grid[0].variants", "begin each of its items with `- `"]),
    (grid(protocols="knn"), ["grid[0].protocols = knn", "write a list: [knn]"]),
    ({"targets": "coarse"}, ["targets = coarse", "write a list: [coarse]"]),
    ({"targets": "coarse, fine"}, ["targets = coarse, fine", "write a list: [coarse, fine]"]),
    ({"targets": None}, ["targets", "nothing stands there; write a list"]),
    ({"finetuning": {"learning_rates": 0.1}}, ["finetuning.learning_rates = 0.1", "write a list: [0.1]"]),
    ({"linear_heads": {"weight_decays": 0}}, ["linear_heads.weight_decays = 0", "write a list: [0]"]),
    ({"probing": {"strengths": 0.1}}, ["probing.strengths = 0.1", "write a list: [0.1]"]),
    ({"selection": "test"}, ["selection = test", "write a list: [test]"]),
    ({"figures": {"draw": "headline"}}, ["figures.draw = headline", "write a list: [headline]"]),
    ({"evaluation": {"eps": 0.5}}, ["evaluation.eps = 0.5", "write a list: [0.5]"]),
    (
        {"grid": {"architectures": ["resnet8_w8"], "eps": [0]}},
        ["grid: write a list", "begin each of its items with `- `"],
    ),
    ({"grid": "resnet8_w8"}, ["grid = resnet8_w8", "write a list: [resnet8_w8]"]),
    ({"grid": None}, ["grid: nothing stands there; write a list"]),
    ({"grid": ["resnet8_w8"]}, ["grid[0] = resnet8_w8", "dictionary", "known: architectures, backbones"]),
    ({"pretraining": {"training": {"epochs": [3]}}}, ["pretraining.training.epochs", "valid integer", "Passes"]),
    ({"source": ["objects"]}, ["source", "not a text but several values"]),
    ({"title": {"a": 1}}, ["title", "not a text but several values"]),
    ({"datasets": ["coarse"]}, ["datasets", "dictionary", "Datasets by name"]),
    ({"datasets": {"coarse": None}}, ["datasets.coarse", "nothing stands there"]),
    ({"datasets": {"coarse": "folder"}}, ["datasets.coarse = folder", "dictionary", "known: origin"]),
    ({"datasets": {"new": {"origin": "photos"}}}, ["datasets.new.origin = photos", "dictionary", "known: kind"]),
    ({"weights": ["mine"]}, ["weights", "dictionary"]),
    ({"running": True}, ["running = true", "not a switch"]),
    ({"figures": ["headline"]}, ["figures", "dictionary", "known: draw"]),
    # Required keys.
    (
        {"grid": [{"eps": [0]}], **NO_WIDTHS},
        ["grid[0].architectures", "required and not there", "Networks to pretrain"],
    ),
    ({"grid": [{"architectures": ["resnet8_w8"]}], **NO_WIDTHS}, ["grid[0].eps", "required and not there", "Radii"]),
    ({"datasets": {"new": {}}}, ["datasets.new.origin", "required and not there"]),
    (
        {"datasets": {"new": {"origin": {"kind": "shapes", "task": "fine", "train": 100}}}},
        ["datasets.new.origin.test", "required and not there", "Number of test images"],
    ),
    (
        {"datasets": {"coarse": {"origin": {"kind": "folder"}}}},
        ["datasets.coarse.origin.path", "required", "The folder"],
    ),
    ({"weights": {"mine": {"kind": "files"}}}, ["weights.mine.path", "required and not there", "running.weights"]),
    ({"weights": {"mine": {"path": "x.pt"}}}, ["weights.mine", "says no kind", "released, torchvision, timm"]),
    # Keys that stand elsewhere, or that another kind has.
    ({"seeds": 3}, ["seeds = 3", "unknown key", "it belongs in grid[…].seeds"]),
    ({"eps": [1]}, ["eps = [1]", "unknown key", "grid[…].eps"]),
    ({"epochs": 3}, ["epochs = 3", "unknown key", "it belongs in pretraining.training.epochs"]),
    ({"batch_size": 3}, ["batch_size = 3", "pretraining.training.batch_size", "finetuning.training.batch_size"]),
    ({"modes": ["full-network"]}, ["unknown key", "it belongs in grid[…].modes"]),
    ({"save_seconds": 3}, ["save_seconds = 3", "it belongs in running.save_seconds"]),
    ({"train_limit": 3}, ["train_limit = 3", "it belongs in datasets.<name>.train_limit"]),
    ({"target": ["coarse"]}, ["unknown key", "did you mean targets?"]),
    ({"pretraining": {"epochs": 3}}, ["pretraining.epochs = 3", "it belongs in pretraining.training.epochs"]),
    ({"linear_heads": {"seeds": [0]}}, ["linear_heads.seeds = [0]", "it belongs in grid[…].seeds"]),
    (grid(epochs=3), ["grid[0].epochs = 3", "it belongs in pretraining.training.epochs"]),
    (grid(architecture=["resnet8_w8"]), ["grid[0].architecture", "did you mean architectures?"]),
    (
        {"datasets": {"coarse": {"origin": {"kind": "parquet", "path": "x", "limit": 10}}}},
        ["datasets.coarse.origin.limit = 10", "unknown key; kind: parquet has path, image_column, label_column"],
    ),
    (
        {"datasets": {"coarse": {"origin": {"kind": "folder", "path": "x", "test": "x"}}}},
        ["datasets.coarse.origin.test = x", "unknown key; kind: folder has path, test_fraction, seed"],
    ),
    (
        {"datasets": {"coarse": {"origin": {"kind": "folder", "path": "x", "test_fractoin": 0.1}}}},
        ["origin.test_fractoin = 0.1", "did you mean test_fraction?"],
    ),
    (
        {"datasets": {"new": {"origin": {"kind": "torchvision", "dataset": "CIFAR10", "path": "x", "root": "x"}}}},
        ["datasets.new.origin.path = x", "kind: torchvision has dataset, root, download"],
    ),
    (
        {"datasets": {"new": {"origin": {"kind": "catalogue", "dataset": "dtd", "path": "x"}}}},
        ["datasets.new.origin.path = x", "kind: catalogue has dataset, split, revision, partial"],
    ),
    (
        {"datasets": {"coarse": {"origin": {"amplitud": 0.1}}}},
        ["coarse.origin.amplitud = 0.1", "did you mean amplitude?", "kind: shapes has task"],
    ),
    (
        {"weights": {"mine": {"kind": "released", "path": "x"}}},
        ["weights.mine.path = x", "unknown key; kind: released"],
    ),
    ({"weights": {"mine": {"kind": "file", "path": "x"}}}, ["no such kind of weights: file", "did you mean files?"]),
    ({"pretraining": {"attack": {"eps": 1}}}, ["pretraining.attack.eps = 1", "grid[…].eps"]),
    # Names that YAML reads as something else, and names that no folder can have.
    ({"source": False}, ["source = false", "not a switch", 'in quotes: "false"']),
    ({"targets": [True]}, ["targets[0] = true", 'put the name in quotes: "true"']),
    ({"targets": [102]}, ["targets[0] = 102", 'not a text; write it in quotes: "102"']),
    ({"experiment": 102}, ["experiment = 102", 'write it in quotes: "102"']),
    ({"experiment": 1.5}, ["experiment = 1.5", 'write it in quotes: "1.5"']),
    ({"experiment": datetime.date(2026, 1, 31)}, ["experiment = 2026-01-31", 'write it in quotes: "2026-01-31"']),
    ({"experiment": ""}, ["experiment = ''", "a name has letters"]),
    ({"experiment": "mine one"}, ["experiment = mine one", "a name has letters, digits, ., _ and -"]),
    ({"experiment": "a" * 280}, ["experiment = aaa", "280 characters, where 80 are the most"]),
    ({"experiment": None}, ["experiment", "nothing stands there"]),
    (
        {"datasets": {"b" * 281: {"origin": {"kind": "folder", "path": "x"}}}},
        ["datasets.bbb", "281 characters, where 80"],
    ),
    ({"weights": {"w" * 282: {"kind": "released"}}}, ["weights.www", "282 characters, where 80 are the most"]),
    ({"backbones": True}, ["backbones = true", 'put the name in quotes: "true"']),
    (grid(backbones=5), ["grid[0].backbones = 5", 'write it in quotes: "5"']),
    (grid(targets=["coarse", 3]), ["grid[0].targets[1] = 3", 'write it in quotes: "3"']),
    (grid(seeds=[True]), ["grid[0].seeds[0] = true", "not a switch"]),
    ({"finetuning": {"learning_rates": [True]}}, ["finetuning.learning_rates[0] = true", "not a switch"]),
    ({"probing": {"standardise": "maybe"}}, ["probing.standardise = maybe", "write true or false"]),
    # Numbers out of any range.
    (grid(eps=[0, "1e999"]), ["grid[0].eps[1] = 1e999", "between 0.000001 and 10000"]),
    (grid(eps=[0, "1e99999999"]), ["grid[0].eps[1] = 1e99999999", "between 0.000001 and 10000"]),
    (grid(eps=[0, "1e-400"]), ["grid[0].eps[1] = 1e-400", "between 0.000001 and 10000"]),
    (grid(eps=["0." + "3" * 40]), ["grid[0].eps[0] = 0.333", "more digits than a number has", "0.333333"]),
    (grid(eps=[[0.1]]), ["grid[0].eps[0]", "positive radius"]),
    (grid(eps=[None]), ["grid[0].eps[0]", "positive radius"]),
    ({"evaluation": {"eps": ["1e999"]}}, ["evaluation.eps[0] = 1e999", "between 0.000001 and 10000"]),
    ({"figures": {"fixed_eps": "1e999"}}, ["figures.fixed_eps = 1e999", "between 0.000001 and 10000"]),
    (grid(seeds=[2**70]), [f"grid[0].seeds[0] = {2**70}", "no whole number here goes beyond 2147483647"]),
    (grid(transfer_seeds=[2**31]), ["grid[0].transfer_seeds[0] = 2147483648", "goes beyond 2147483647"]),
    ({"datasets": {"coarse": {"seed": -(2**70)}}}, [f"datasets.coarse.seed = {-(2**70)}", f"goes beyond {2**64 - 1}"]),
    ({"pretraining": {"training": {"epochs": 2**40}}}, ["training.epochs = 1099511627776", "goes beyond 2147483647"]),
    (
        grid(architectures=["resnet8_w99999999"]),
        ["architectures[0] = resnet8_w99999999", "at most 1202 layers and width 1024"],
    ),
    (grid(architectures=["resnet99998_w16"]), ["architectures[0] = resnet99998_w16", "at most 1202 layers"]),
    (grid(architectures=["resnet8_w" + "9" * 5000]), ["architectures[0] = resnet8_w9", "no such architecture"]),
    (grid(architectures=["resnet08_w16"]), ["architectures[0] = resnet08_w16", "write resnet8_w16"]),
    (grid(images_per_class=[1]), ["grid[0].images_per_class[0] = 1", "a number from 2 up"]),
    (grid(images_per_class=["ten"]), ["grid[0].images_per_class[0] = ten", "`all` or a number"]),
    ({"input_size": 4096}, ["input_size = 4096", "less than or equal to 1024"]),
    ({"figures": {"bootstrap": 3}}, ["figures.bootstrap = 3", "greater than or equal to 100"]),
    ({"running": {"workers": -1}}, ["running.workers = -1", "greater than or equal to 0"]),
    ({"running": {"stop_before": "soon"}}, ["running.stop_before = soon", "2030-01-31T08:00"]),
    (
        {"datasets": {"coarse": {"normalisation": {"mean": [123, 117, 104]}}}},
        ["coarse.normalisation", "mean = [123.0", "divide by 255: [0.4824"],
    ),
    (
        {"datasets": {"coarse": {"normalisation": {"std": [58, 57, 57]}}}},
        ["normalisation: std = [58.0", "divide by 255: [0.2275"],
    ),
    (
        {"datasets": {"coarse": {"normalisation": {"mean": [-1, 0, 0]}}}},
        ["normalisation: mean = [-1.0", "pixels are in [0, 1]"],
    ),
    (
        {"datasets": {"coarse": {"normalisation": {"mean": [0.5]}}}},
        ["normalisation.mean = [0.5]", "1 values, where 3 are to stand"],
    ),
    ({"datasets": {"coarse": {"normalisation": {"mean": 0.5}}}}, ["normalisation.mean = 0.5", "write a list: [0.5]"]),
    # Paths.
    ({"store": "{entry}"}, ["store = {entry}", "has a brace ({)", "name it otherwise"]),
    ({"store": ""}, ["store = ''", "at least 1 character"]),
    ({"store": "$NOT_SET_ANYWHERE/store"}, ["$NOT_SET_ANYWHERE is not set", "export it, or write the path out"]),
    ({"results": "-r"}, ["results = -r", "begins with a dash", "name it otherwise"]),
    ({"results": "a:b"}, ["results = a:b", "has a colon (:)"]),
    ({"results": "results "}, ["begins or ends with a space", "take it out"]),
    (
        {"datasets": {"new": {"origin": {"kind": "folder", "path": ""}}}},
        ["datasets.new.origin.path = ''", "at least 1 character"],
    ),
    (
        {"datasets": {"new": {"origin": {"kind": "folder", "path": 3}}}},
        ["datasets.new.origin.path = 3", 'in quotes: "3"'],
    ),
    # Datasets.
    (
        {"datasets": {"new": {"origin": {"kind": "catalogue", "dataset": "flower"}}}},
        ["origin.dataset = flower", "did you mean flowers"],
    ),
    (
        {"datasets": {"new": {"origin": {"kind": "catalogue", "dataset": "dtd", "split": "mine"}}}},
        ["datasets.new.origin", "split = mine"],
    ),
    ({"datasets": {"coarse": {"origin": {"side": 8}}}}, ["coarse.origin.side = 8", "greater than or equal to 16"]),
    ({"datasets": {"coarse": {"origin": {"twins": 0.5}}}}, ["coarse.origin", "twins = 0.5", "leave it out"]),
    ({"datasets": {"coarse": {"origin": {"task": "course"}}}}, ["coarse.origin.task = course", "did you mean coarse?"]),
    ({"datasets": {"coarse": {"unreadable": "ignore"}}}, ["datasets.coarse.unreadable = ignore", "error or skip"]),
    ({"missing": "ignore"}, ["missing = ignore", "write stop or drop"]),
    # Weights.
    ({"backbones": "mine"}, ["backbones = mine", "weights defines no such name", "trained"]),
    (grid(backbones="mine"), ["grid[0].backbones = mine", "write one of trained"]),
    ({"weights": {"trained": {"kind": "released"}}}, ["weights.trained", "take another"]),
    (
        from_files("net.pt", eps=[0, 1, 3]),
        ["weights.mine.path = net.pt", "one file, net.pt", "eps 0", "l2 eps 1", "{eps}"],
    ),
    (from_files("{eps}.pt", architectures=["resnet8_w8", "resnet8_w16"]), ["one file, 0.pt", "{architecture}"]),
    (from_files("a/../net.pt", eps=[1, 3]), ["one file, net.pt", "resnet8_w8 l2 eps 1", "resnet8_w8 l2 eps 3"]),
    (from_files("{seed:02}.pt", eps=[1, 3], seeds=[0, 1]), ["one file, 00.pt", "{eps}"]),
    (from_files("{eps:>9999999}"), ["weights.mine.path = {eps:>9999999}", "{eps} takes no format; write {eps} alone"]),
    (from_files("{eps.__class__}"), ["weights.mine.path = {eps.__class__}", "no such placeholder: eps.__class__"]),
    (from_files("{architecture!r}"), ["weights.mine.path = {architecture!r}", "{architecture} takes no format"]),
    (from_files("{seed:9999}"), ["weights.mine.path = {seed:9999}", "{seed} takes no format"]),
    (from_files("{}"), ["weights.mine.path = {}", "no such placeholder: {}"]),
    (from_files("{eps"), ["weights.mine.path = {eps", "write a literal brace twice"]),
    (from_files(" "), ["weights.mine.path", "no path; write that of a file"]),
    (from_files("{eps}.pt", seeds=[0, 1]), ["grid[0].seeds", "mine has one network of each kind"]),
    (imported({"kind": "torchvision"}), ["grid[0]", "torchvision has no weights of resnet8_w8"]),
    (
        imported({"kind": "torchvision", "weights": "IMAGENET1K_V2"}, architectures=["resnet50", "resnet18"]),
        ["weights.mine.weights = IMAGENET1K_V2: torchvision has no such weights of resnet18", "mean IMAGENET1K_V1?"],
    ),
    (
        imported({"kind": "torchvision", "weights": "imagenet"}, architectures=["vit_b_16"]),
        ["weights.mine.weights = imagenet", "There are IMAGENET1K_V1, IMAGENET1K_SWAG_E2E_V1, IMAGENET1K_SWAG_LINEAR_"],
    ),
    (imported({"kind": "torchvision"}, architectures=["resnet18"], eps=[3]), ["grid[0]", "eps 3", "set eps: [0]"]),
    (
        imported({"kind": "released"}, architectures=["resnet18"], eps=[2]),
        ["grid[0]", "no resnet18 was released for l2 eps 2", "there are"],
    ),
    (imported({"kind": "timm"}), ["grid[0]", "timm has no weights of resnet8_w8", "timm_<name>"]),
    (imported({"kind": "stylized-imagenet"}), ["grid[0]", "no resnet8_w8 trained on sin", "resnet50"]),
    # Lists that name a thing twice, and what YAML reads as a number or a switch.
    ({"figures": {"draw": ["headline", "headline"]}}, ["figures.draw", "named twice: headline"]),
    ({"figures": {"widths": ["resnet8_w8", "resnet8_w8"]}}, ["figures.widths", "named twice: resnet8_w8"]),
    (
        {"running": {"stop_before": 2030}},
        ["running.stop_before = 2030", "a number, as YAML reads it", "2030-01-31T08:00"],
    ),
    ({"missing": False}, ["missing = false", "not a switch; write stop or drop"]),
    # Recipes.
    (
        {"pretraining": {"recipe": "fsat"}},
        ["pretraining.recipe = fsat", "did you mean fast?", "pretraining.training.epochs"],
    ),
    (
        {"pretraining": {"recipe": "mine", "training": {"batch_size": 8}}},
        ["pretraining.recipe = mine", "brings no values", "state the settings"],
    ),
    ({"pretraining": {"recipe": True}}, ["pretraining.recipe = true", "not a switch"]),
    # Contradictions.
    (grid(eps=["8/255"], norm="l2"), ["grid[0]", "8/255 is a fraction of 255, which only norm: linf takes"]),
    (grid(views=["native", "native"]), ["grid[0].views", "named twice: native"]),
    (grid(variants=[{"batchnorm": "on"}]), ["grid[0].variants[0].batchnorm = on", "drift or frozen"]),
    ({"linear_heads": {"training": {"learning_rate": 1}}}, ["linear_heads", "list the values in learning_rates"]),
    (
        {"linear_heads": {"training": {"average_decay": 0.5}}},
        ["linear_heads", "training.average_decay is not for heads"],
    ),
    ({"selection": ["test", "test"]}, ["selection", "names a selection twice"]),
    ({"input_size": "24px"}, ["input_size = 24px", "valid integer"]),
]
"""What is wrong, and words that the message must hold: the key, the value, the fix."""

OF_THE_GRID: list[Mistake] = [
    ({"store": "config.yaml/store"}, ["store = config.yaml/store", "config.yaml is a file", "write another path"]),
    ({"results": "Snakefile"}, ["results = Snakefile", "Snakefile is a file", "write another path"]),
    (
        grid(images_per_class=[5000]),
        ["grid[0].images_per_class = 5000", "no class of coarse has more than 100", "`all`"],
    ),
    (
        grid(images_per_class=[101], targets=["textures"]),
        ["images_per_class = 101", "no class of textures has more than"],
    ),
    (
        {"datasets": {"coarse": {"train_limit": 40}}, **grid(images_per_class=[10, "all"])},
        ["grid[0].images_per_class = 10", "no class of coarse has more than 4 training images"],
    ),
    (
        {
            "datasets": {"coarse": {"origin": {"kind": "folder", "path": "x"}, "train_limit": 40}},
            **grid(images_per_class=[50]),
        },
        ["grid[0].images_per_class = 50", "no class of coarse has more than 40"],
    ),
    (
        {
            "datasets": {"coarse": {"origin": {"kind": "catalogue", "dataset": "flowers"}}},
            **grid(images_per_class=[5000]),
        },
        ["grid[0].images_per_class = 5000", "no class of coarse has more than 919"],
    ),
    (
        {"datasets": {"coarse": {"train_limit": 3}}, **grid()},
        ["datasets.coarse.train_limit = 3", "each of the 10 classes", "write 10 or more"],
    ),
    (
        {"datasets": {"coarse": {"origin": {"kind": "catalogue", "dataset": "dtd"}, "test_limit": 30}}, **grid()},
        ["datasets.coarse.test_limit = 30", "each of the 47 classes", "write 47 or more"],
    ),
    (
        {"datasets": {"coarse": {"origin": {"kind": "torchvision", "dataset": "Cifar10", "root": "x"}}}, **grid()},
        ["datasets.coarse.origin.dataset = Cifar10", "no such class; did you mean CIFAR10"],
    ),
    (
        long_names("s" * 80, "w" * 80, "t" * 80),
        ["the name of this entry has", "characters", "give shorter names"],
    ),
    (
        {
            "missing": "drop",
            "source": "objects",
            "datasets": {"objects": {"origin": {"kind": "folder", "path": "no/where"}}},
            **grid(),
        },
        ["source = objects", "its images are missing, and backbones train on them"],
    ),
    (
        {
            "missing": "drop",
            "targets": ["coarse"],
            "datasets": {"coarse": {"origin": {"kind": "folder", "path": "no/where"}}},
            **grid(),
        },
        ["targets = coarse", "the images of all are missing"],
    ),
]
"""The same, found when the entries are planned."""

TEXTS: list[tuple[str, list[str]]] = [
    ("grid: []\ngrid: []\n", ["grid", "stands there twice, in lines 2 and 3"]),
    (
        "pretraining:\n  training: {epochs: 3}\n  training: {batch_size: 8}\n",
        ["pretraining.training", "in lines 3 and 4"],
    ),
    ("grid:\n  - {eps: [0], eps: [1], architectures: [resnet8_w8]}\n", ["grid[0].eps", "in lines 3 and 3"]),
    ('"title": a\ntitle: b\n', ["title", "stands there twice", "make one of them"]),
    ("no: 3\n", ["no: YAML reads the key no as a switch", 'write it in quotes: "no"']),
    ("datasets: {on: {origin: {kind: folder, path: x}}}\n", ["datasets.on", "as a switch", 'in quotes: "on"']),
    ("datasets: {102: {origin: {kind: folder, path: x}}}\n", ["datasets.102", "as a number", 'in quotes: "102"']),
    ("datasets: {007: {origin: {kind: folder, path: x}}}\n", ["datasets.007", 'in quotes: "007"']),
    ("weights: {1.5: {kind: released}}\n", ["weights.1.5", "as a number", 'in quotes: "1.5"']),
    ("datasets: {~: {origin: {kind: folder, path: x}}}\n", ["datasets.~", "as nothing", 'in quotes: "~"']),
    ("source: no\n", ["source = no", "not a switch", 'put the name in quotes: "no"']),
    ("targets: [on]\n", ["targets[0] = on", 'put the name in quotes: "on"']),
    ("experiment: off\n", ["experiment = off", 'in quotes: "off"']),
    ("experiment: 0102\n", ["experiment", 'write it in quotes: "0102"']),
    ("backbones: yes\n", ["backbones = yes", 'in quotes: "yes"']),
    ("pretraining: {training: {epochs: yes}}\n", ["pretraining.training.epochs = true", "not a switch", "Passes"]),
    ("title: {a: &x [*x]}\n", ["an alias that holds itself"]),
    ("extends: nope.yaml\n", ["extends = nope.yaml", "no such file", "relative to the file that extends"]),
    ("extends: defualt\n", ["extends = defualt", "did you mean default?"]),
    ("extends: [default, .]\n", ["extends = .", "a folder, not a file"]),
    ("extends: 3\n", ["extends = 3", "write the name of a file"]),
    ("extends: ''\n", ["extends", "write the name of a file"]),
    ("extends: mine.yaml\n", ["extends itself"]),
    ("extends: ../{folder}/mine.yaml\n", ["extends itself"]),
]
"""Files that Snakemake reads, and words of our message. A text without `extends` has the default below it."""

UNREADABLE: list[tuple[bytes | None, list[str]]] = [
    (b"", ["is empty", "extends: default"]),
    (b"# nothing but a remark\n", ["is empty"]),
    (b"- a\n- b\n", ["holds a list, not settings"]),
    (b"a text\n", ["holds the text a text, not settings"]),
    (b"extends: default\n---\nextends: default\n", ["line 2 begins a second document", "keep one"]),
    (b"extends: default\ngrid:\n\t- a\n", ["line 3, column 1", "indent by spaces, not by tabs"]),
    (b"grid: [1\n", ["not YAML", "line 2"]),
    (b"title: a: b\n", ["line 1", "needs quotes"]),
    (b"title: *mine\n", ["undefined alias", "needs quotes"]),
    (b"title: !!python/name:os.system x\n", ["title", "constructor"]),
    (b"title: !!set {a, b}\n", ["title: !!set in line 1 is not read", "leave it out"]),
    (b"title: 2026-13-45\n", ["title = 2026-13-45", "month must be in 1..12", "in quotes"]),
    (b"title: caf\xe9\n", ["line 1 is not UTF-8 (byte 0xe9)", "iconv -f latin1 -t utf-8 mine.yaml"]),
    ("title: café\n".encode("utf-16"), ["is written in UTF-16", "save it as UTF-8"]),
    ("title: café\n".encode("utf-16-le"), ["zero bytes", "save it as UTF-8"]),
    ("title: café\n".encode("utf-32"), ["is written in UTF-32", "save it as UTF-8"]),
    (b"{" * 2000, ["nested too deeply"]),
    (b"? [a, b]\n: c\n", ["line 1: a list or a mapping as a key"]),
    (b"title: {{mine}}\n", ["a list or a mapping as a key", "need quotes"]),
    (None, ["no such file"]),
]
"""Files at which Snakemake's own reader, which comes first, fails without their name; words of our message."""
