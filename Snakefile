import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.20")

PACKAGE = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(PACKAGE))

from robust_transfer.configuration.load import DEFAULT, ConfigurationError
from robust_transfer.dag.container import image
from robust_transfer.dag.engine import Engine
from robust_transfer.dag.wiring import export_environment, memory, wire
from robust_transfer.planning.feeding import Feeding
from robust_transfer.registry import FIGURES

export_environment(PACKAGE)

try:
    ENGINE = Engine(workflow, ancient)
    WIRING = wire(workflow.configfiles, workflow.config_settings.config, ENGINE)
    FEEDING = Feeding(WIRING.grid, ENGINE)
    IMAGE = image(WIRING.grid.experiment.running, ENGINE)
except ConfigurationError as error:
    raise WorkflowError(str(error))
if not workflow.configfiles:  # after our own reading, which says what is wrong with the file

    configfile: DEFAULT


config.update(WIRING.configuration)  # for the report's texts
STORE = WIRING.store
RESULTS = WIRING.results
DRAW = WIRING.grid.experiment.figures.draw


container: IMAGE


report: "workflow/report/workflow.rst"


wildcard_constraints:
    entry=r"[^/]+",


rule all:
    input:
        [RESULTS / "figures" / f"{figure}.{suffix}" for figure in DRAW for suffix in FIGURES[figure].suffixes],
        RESULTS / "summary.txt",
        RESULTS / "results.parquet",
        RESULTS / "claims.html",
        RESULTS / "index.html",
        WIRING.measured,


include: "rules/datasets.smk"
include: "rules/granularity.smk"
include: "rules/stylizing.smk"
include: "rules/importing.smk"
include: "rules/pretraining.smk"
include: "rules/evaluation.smk"
include: "rules/conflicts.smk"
include: "rules/features.smk"
include: "rules/probing.smk"
include: "rules/knn.smk"
include: "rules/cue_conflict.smk"
include: "rules/gallery.smk"
include: "rules/linear_heads.smk"
include: "rules/finetuning.smk"
include: "rules/selecting.smk"
include: "rules/robustness.smk"
include: "rules/test_sets.smk"
include: "rules/results.smk"
include: "rules/claims.smk"
include: "rules/figures.smk"
include: "rules/report.smk"
include: "rules/page.smk"


onstart:
    WIRING.prepare()


onsuccess:
    WIRING.print_summary()


onerror:
    WIRING.print_failures()
