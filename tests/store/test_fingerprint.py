"""Fingerprints: an edit that changes what a stage does changes them, one that does not does not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from robust_transfer.registry import ALL_STAGES, FIGURES
from robust_transfer.store.fingerprint import _module_fingerprint, changed_modules, fingerprint, modules
from support.paths import ROOT

# What each stage's fingerprint covers. A module that appears here by surprise reruns the stage whenever it is edited.
MODULES = {
    "datasets": """
        datasets.arrow datasets.collection datasets.errors datasets.fetching.archive_formats
        datasets.fetching.archive_members
        datasets.fetching.archive_writer datasets.fetching.archives datasets.fetching.disk datasets.fetching.downloads
        datasets.fetching.partial_files datasets.fetching.remote_files datasets.fetching.web_pages datasets.finding
        datasets.images datasets.names datasets.originals datasets.origins.catalogued datasets.origins.folder
        datasets.origins.layouts
        datasets.origins.layouts.annotated datasets.origins.layouts.caltech datasets.origins.layouts.cifar
        datasets.origins.layouts.imagenet datasets.origins.layouts.lists datasets.origins.layouts.paintings
        datasets.origins.opening
        datasets.origins.parquet datasets.origins.shapes datasets.origins.torchvision datasets.resident datasets.splits
        datasets.storing stages.datasets store.originals
    """,
    "granularity": """
        datasets.arrow datasets.images datasets.resident datasets.storing stages.granularity
    """,
    "stylizing": """
        datasets.arrow datasets.errors datasets.fetching.archive_formats datasets.fetching.web_pages datasets.images
        datasets.origins.shapes datasets.resident datasets.splits datasets.storing machine.devices randomness
        stages.stylizing stylization.adain stylization.phase stylization.sheet stylization.styles weights.pickle_machine
        weights.pickle_values weights.pickles weights.state_dicts
    """,
    "importing": """
        architectures datasets.errors datasets.fetching.archive_formats datasets.fetching.disk
        datasets.fetching.downloads datasets.fetching.partial_files datasets.fetching.remote_files
        datasets.fetching.web_pages networks.backbones networks.build networks.max_pool networks.max_pool_kernels
        networks.pooling networks.small_resnet stages.importing store.originals tables.published weights.checkpoints
        weights.files weights.outputs weights.pickle_machine weights.pickle_values weights.pickles weights.state_dicts
    """,
    "pretraining": """
        architectures attacks datasets.arrow datasets.resident loading.augmentation loading.loader loading.shared_memory
        loading.sources loading.streaming machine.devices machine.distributed machine.graphs networks.backbones
        networks.build networks.folding networks.fusing networks.image_gradient networks.max_pool
        networks.max_pool_kernels networks.pooling networks.small_resnet randomness stages.pretraining tables.flags
        tables.sanity training.adamw training.averaging training.batchnorm training.inference training.loop
        training.optimiser training.progress training.schedules training.sgd weights.outputs
    """,
    "evaluation": """
        architectures attacks datasets.arrow datasets.resident loading.augmentation machine.devices networks.backbones
        networks.build networks.folding networks.fusing networks.image_gradient networks.max_pool
        networks.max_pool_kernels networks.pooling networks.small_resnet randomness stages.evaluation statistics.metrics
        training.attacking training.inference weights.outputs
    """,
    "conflicts": """
        datasets.arrow datasets.collection datasets.errors datasets.images datasets.names datasets.originals
        datasets.origins.conflicts datasets.origins.shapes datasets.resident datasets.storing stages.conflicts
        statistics.intervals statistics.shape_bias store.originals
    """,
    "features": """
        architectures datasets.arrow datasets.resident loading.augmentation loading.loader loading.shared_memory
        loading.sources loading.streaming machine.devices networks.backbones networks.build networks.layers
        networks.max_pool networks.max_pool_kernels networks.pooling networks.small_resnet randomness stages.features
        store.features
    """,
    "probing": """
        datasets.splits stages.probing statistics.lbfgs statistics.logistic_regression statistics.metrics
        statistics.predictions statistics.scikit_learn store.features store.predictions training.fixed_features
    """,
    "knn": """
        datasets.splits stages.knn statistics.metrics statistics.nearest_neighbours statistics.predictions
        store.features store.predictions training.fixed_features
    """,
    "cue_conflict": """
        architectures datasets.arrow datasets.resident datasets.splits loading.augmentation machine.devices
        networks.backbones networks.build networks.layers networks.max_pool networks.max_pool_kernels networks.pooling
        networks.small_resnet randomness stages.cue_conflict statistics.intervals statistics.lbfgs
        statistics.logistic_regression statistics.metrics statistics.predictions statistics.scikit_learn
        statistics.shape_bias store.features store.predictions tables.flags tables.sanity training.class_probe
        training.fixed_features training.inference weights.cue_outputs weights.outputs
    """,
    "gallery": """
        architectures attacks datasets.arrow datasets.resident figures.labels gallery gallery.gradients gallery.search
        gallery.sheets loading.augmentation machine.devices networks.backbones networks.build networks.last_relu
        networks.max_pool networks.max_pool_kernels networks.pooling networks.small_resnet randomness stages.gallery
        statistics.intervals statistics.means training.inference weights.outputs
    """,
    "linear_heads": """
        architectures attacks datasets.arrow datasets.resident datasets.splits loading.augmentation loading.loader
        loading.shared_memory loading.sources loading.streaming machine.devices machine.distributed machine.graphs
        networks.backbones networks.build networks.folding networks.fusing networks.image_gradient networks.max_pool
        networks.max_pool_kernels networks.parallel_heads networks.pooling networks.probe_head networks.small_resnet
        randomness stages.linear_heads statistics.lbfgs statistics.logistic_regression statistics.metrics
        statistics.predictions store.features store.predictions training.adamw training.attacking training.averaging
        training.batchnorm training.inference training.loop training.optimiser training.progress training.schedules
        training.sgd training.transfer
    """,
    "finetuning": """
        architectures attacks datasets.arrow datasets.resident datasets.splits loading.augmentation loading.loader
        loading.shared_memory loading.sources loading.streaming machine.devices machine.distributed machine.graphs
        networks.backbones networks.build networks.folding networks.freezing networks.fusing networks.image_gradient
        networks.layers networks.max_pool networks.max_pool_kernels networks.parallel_heads networks.pooling
        networks.probe_head networks.small_resnet randomness stages.finetuning statistics.lbfgs
        statistics.logistic_regression statistics.metrics statistics.predictions statistics.scikit_learn store.features
        store.predictions store.runs training.adamw training.attacking training.averaging training.batchnorm
        training.class_probe training.fixed_features training.inference training.loop training.optimiser
        training.probe_solution training.progress training.schedules training.sgd training.transfer
    """,
    "selecting": """
        stages.selecting statistics.predictions store.features store.predictions store.runs
    """,
    "robustness": """
        architectures attacks datasets.arrow datasets.resident datasets.splits loading.augmentation machine.devices
        networks.backbones networks.build networks.folding networks.fusing networks.image_gradient networks.max_pool
        networks.max_pool_kernels networks.pooling networks.probe_head networks.small_resnet randomness
        stages.robustness statistics.lbfgs statistics.logistic_regression statistics.metrics statistics.predictions
        statistics.scikit_learn store.attacked store.features store.predictions store.runs tables.key training.attacking
        training.class_probe training.fixed_features training.inference training.transferred
    """,
    "results": """
        stages.results statistics.candidates statistics.comparable statistics.intervals statistics.metrics
        statistics.predictions statistics.selection store.attacked store.features store.predictions store.runs
        tables.categories tables.chosen tables.errors tables.experiment_info tables.flags tables.key tables.parquet
        tables.results tables.sanity tables.seeds tables.training tables.training_records tables.transfer_records
        tables.transfer_sanity
    """,
    "claims": """
        claims.best_eps claims.comparison claims.differences claims.ledger claims.lookup claims.published claims.rules
        claims.trends claims.words claims.writing figures figures.cells figures.estimates figures.fixed_robustness
        figures.html figures.labels figures.latex figures.markdown figures.numbers figures.protocols figures.tables
        stages.claims statistics.correlation statistics.evidence statistics.intervals tables.categories tables.errors
        tables.experiment_info tables.flags tables.key tables.parquet tables.published tables.published_experiment
        tables.published_results tables.published_texture tables.results
    """,
    "report": """
        figures.cells figures.estimates figures.labels figures.plain_text figures.protocols stages.report
        tables.categories tables.errors tables.experiment_info tables.flags tables.key tables.parquet tables.published
        tables.published_experiment tables.published_results tables.results tables.training
    """,
    "figures/width": """
        figures figures.axes figures.beside figures.cells figures.drawing figures.estimates figures.kinds
        figures.labels figures.legends figures.lettering figures.numbers figures.pairs figures.protocols figures.style
        figures.width stages.figures tables.categories
        tables.errors
        tables.experiment_info tables.flags tables.key tables.parquet tables.published tables.published_experiment
        tables.published_results tables.results tables.training
    """,
}


def fingerprints(package: Path, python: str = sys.executable) -> dict[str, str]:
    code = (
        "import json, sys; from robust_transfer.store.fingerprint import fingerprint as f; "
        "from robust_transfer.registry import ALL_STAGES, FIGURES; "
        "names = [*ALL_STAGES.keys() - {'figures'}, *('figures/' + name for name in FIGURES)]; "
        "print(json.dumps({name: f(name) for name in names}))"
    )
    found = subprocess.run([python, "-c", code], cwd=package.parent, capture_output=True, text=True, check=True)
    return dict(json.loads(found.stdout))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(
            ROOT / "workflow" / "robust_transfer",
            tmp_path / "robust_transfer",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    )


def edit(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_comments_and_docstrings_change_nothing(package: Path) -> None:
    before = fingerprints(package)
    attacks = package / "attacks.py"
    attacks.write_text("# a remark\n" + attacks.read_text().replace('"""', '"""Reworded. ', 1))
    assert fingerprints(package) == before


BEFORE = """
import logging
log = logging.getLogger("robust_transfer")
def rate(images, seconds):
    found = images / seconds
    return found
class Box:
    side: int = 3
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("images, seconds):", "images: int, seconds: float) -> float:"),
        ("    found = images", "    found: float = images"),
        ("    return found", "    log.info('%d images, %.1f', len(images), found)\n    return found"),
        ("log = logging", "log: logging.Logger = logging"),
    ],
)
def test_what_only_readers_are_told_changes_nothing(old: str, new: str, tmp_path: Path) -> None:
    assert old in BEFORE
    assert _said(BEFORE.replace(old, new), tmp_path) == _said(BEFORE, tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    side: int = 3", "    side: float = 3"),  # a dataclass or a model reads it
        ("    found =", "    global found\n    found ="),
        ("    return found", "    log.info('%d', next(images))\n    return found"),
        ("    return found", "    log.info('%d', found := 2)\n    return found"),
        ("    return found", "    seconds.info('%d', found)\n    return found"),
        ("    return found", "    found: int\n    return found"),
        ("def rate(", "@registered\ndef rate("),
    ],
)
def test_what_might_be_read_or_computed_changes_it(old: str, new: str, tmp_path: Path) -> None:
    assert old in BEFORE
    assert _said(BEFORE.replace(old, new), tmp_path) != _said(BEFORE, tmp_path)


LOCAL = """
import json
def rate(images, seconds, key=None):
    total = 0
    for image in images:
        total += image
    def half(part):
        return part / 2 + total
    try:
        found = [one / seconds for one in images if (last := one)]
    except ZeroDivisionError as error:
        raise ValueError(f"{error}") from error
    match found:
        case [first, *rest]:
            total = first
    with open("x") as file:
        json.dump({one: value for one, value in zip(found, found)}, file)
    return half(total), last, sorted(found, key=lambda pair: pair), key
numbers = [one for one in range(3)]
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("total", "summed"),  # read by an inner function, too
        ("image ", "picture "),
        ("found", "rates"),
        ("error", "problem"),
        ("first", "head"),
        ("rest", "tail"),
        ("file", "stream"),
        ("last", "newest"),
        ("one / seconds for one in images if (last := one)", "rate / seconds for rate in images if (last := rate)"),
        ("{one: value for one, value", "{k: v for k, v"),
        ("[one for one in range(3)]", "[i for i in range(3)]"),
    ],
)
def test_a_local_variable_may_be_called_anything(old: str, new: str, tmp_path: Path) -> None:
    renamed = LOCAL.replace("+= image\n", "+= picture\n") if old == "image " else LOCAL
    assert old in renamed
    assert _said(renamed.replace(old, new), tmp_path) == _said(LOCAL, tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("total = first", "found = first"),  # another variable
        ("return half(total)", "return half(last)"),
        ("part / 2 + total", "part / 2 + part"),
        ("seconds", "minutes"),  # callers name parameters
        ("(part)", "(whole)"),
        ("half", "halved"),
        ("    total = 0", "    json = total = 0"),
        ("one / seconds for one", "last / seconds for one"),
        ("range(3)", "reversed(range(3))"),
        ("numbers =", "others ="),  # other modules name a module's
        ("    total = 0", "    total = 0\n    print(locals())"),
    ],
)
def test_which_variable_is_meant_is_part_of_what_is_said(old: str, new: str, tmp_path: Path) -> None:
    assert old in LOCAL
    assert _said(LOCAL.replace(old, new), tmp_path) != _said(LOCAL, tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "print(locals())", "eval('total')", "exec('total')", "vars()", "images.query('x > @total')",
        "inspect.currentframe()", "global other", "class Inner: total = 1",
    ],
)  # fmt: skip
def test_where_variables_may_be_looked_up_by_name_names_count(line: str, tmp_path: Path) -> None:
    source = LOCAL.replace("    total = 0", f"    total = 0\n    {line}")
    names = source.replace("total", "summed").replace("@summed", "@total").replace("'summed'", "'total'")
    assert _said(names, tmp_path) != _said(source, tmp_path)


def test_what_an_inner_function_reads_from_outside_is_not_the_variable_of_that_name(tmp_path: Path) -> None:
    source = "def outer():\n    def inner():\n        {0} = 1\n        return {0}\n    return inner() + {1}\n"
    assert _said(source.format("a", "a"), tmp_path) == _said(source.format("b", "a"), tmp_path)
    assert _said(source.format("a", "a"), tmp_path) != _said(source.format("a", "b"), tmp_path)  # that is a global


def test_the_level_of_what_is_computed_to_be_logged_changes_nothing(tmp_path: Path) -> None:
    logged = BEFORE.replace("    return", "    log.info('%d', next(images))\n    return")
    assert _said(logged.replace("log.info", "log.debug"), tmp_path) == _said(logged, tmp_path)
    decorated = BEFORE.replace("def rate(", "@registered\ndef rate(")
    assert _said(decorated.replace("images,", "images: int,"), tmp_path) != _said(decorated, tmp_path)


def test_a_log_that_is_something_else_is_part_of_what_is_computed(tmp_path: Path) -> None:
    other = BEFORE.replace("    found =", "    log = images\n    found =")
    logged = other.replace("    return", "    log.info(found)\n    return")
    assert _said(logged, tmp_path) != _said(other, tmp_path)


def _said(source: str, folder: Path) -> str:
    _module_fingerprint.cache_clear()
    (folder / "module.py").write_text(source)
    return _module_fingerprint(folder / "module.py")


def test_an_edit_reaches_the_stages_that_use_the_module_and_no_others(package: Path) -> None:
    before = fingerprints(package)
    edit(package / "attacks.py", "\nSOMETHING = 1\n")
    changed = {stage for stage, found in fingerprints(package).items() if found != before[stage]}
    assert changed == {"pretraining", "evaluation", "gallery", "linear_heads", "finetuning", "robustness"}


def test_the_grid_the_command_line_and_the_store_reach_none(package: Path) -> None:
    before = fingerprints(package)
    for module in (
        "dag/grid.py",
        "cli.py",
        "store/entry.py",
        "dag/wiring.py",
        "configuration/training.py",
        "resuming/states.py",
    ):
        edit(package / module, "\nSOMETHING = 1\n")
    assert fingerprints(package) == before


def test_a_figure_reaches_itself_alone(package: Path) -> None:
    before = fingerprints(package)
    edit(package / "figures" / "eps_curves.py", "\nSOMETHING = 1\n")
    changed = {stage for stage, found in fingerprints(package).items() if found != before[stage]}
    assert changed == {"figures/eps_curves"}


@pytest.mark.parametrize("stage", sorted(MODULES))
def test_a_stage_covers_these_modules(stage: str) -> None:
    assert list(modules(stage)) == MODULES[stage].split()


def test_no_fingerprint_is_empty_and_no_two_stages_share_one_by_accident() -> None:
    """A list of what is left out that matches too much would leave nothing of a stage."""
    names = [*(name for name in ALL_STAGES if name != "figures"), *(f"figures/{name}" for name in FIGURES)]
    for name in names:
        root = "stages.figures" if name.startswith("figures/") else f"stages.{name}"
        assert root in modules(name)
    by_module: dict[str, list[str]] = {}
    for name, figure in FIGURES.items():
        by_module.setdefault(figure.module, []).append(fingerprint(f"figures/{name}"))
    assert max(map(len, by_module.values())) > 2  # several figures are drawn by one module
    assert all(len(set(found)) == 1 for found in by_module.values())
    assert len({fingerprint(name) for name in names}) == len(names) - len(FIGURES) + len(by_module)


def test_a_module_that_moves_reruns_nothing(package: Path) -> None:
    before = fingerprints(package)
    (package / "perturbing").mkdir()
    (package / "perturbing" / "__init__.py").write_text("")
    (package / "attacks.py").rename(package / "perturbing" / "pgd.py")
    for path in package.rglob("*.py"):
        path.write_text(path.read_text().replace("robust_transfer.attacks", "robust_transfer.perturbing.pgd"))
    assert fingerprints(package) == before


def test_what_an_import_renames_is_part_of_what_a_module_says(package: Path) -> None:
    before = fingerprints(package)
    edit(package / "attacks.py", "\nfrom robust_transfer.randomness import key\n")
    assert fingerprints(package) == before
    edit(package / "attacks.py", "\nfrom robust_transfer.randomness import key as eps_value\n")
    assert fingerprints(package)["pretraining"] != before["pretraining"]


def test_what_changed_is_named_and_what_moved_is_not() -> None:
    before = {"attacks": "a", "grid": "g", "sgd": "s"}
    assert changed_modules(before, {"pgd": "a", "dag.grid": "g", "training.sgd": "s"}) == set()
    assert changed_modules(before, {"attacks": "b", "grid": "g", "sgd": "s"}) == {"attacks"}
    assert changed_modules(before, {"attacks": "a", "grid": "g"}) == {"sgd"}
    assert changed_modules(before, {**before, "twin": "s"}) == {"sgd", "twin"}  # one of the two is new


@pytest.mark.parametrize("minor", ["3.11", "3.12", "3.13", "3.14"])
def test_every_python_gives_the_same_fingerprints(minor: str) -> None:
    other = shutil.which(f"python{minor}")
    if other is None or subprocess.run([other, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"no python{minor} on this machine")
    assert fingerprints(ROOT / "workflow" / "robust_transfer", other) == fingerprints(
        ROOT / "workflow" / "robust_transfer"
    )
