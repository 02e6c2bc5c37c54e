#!/usr/bin/env bash
# Snakemake runs this in the new environment: the locked packages with their hashes, then the package itself, in place.
# pip takes no hashes and a folder in one call, and a path in the YAML file would start where Snakemake copies that file to.
set -euo pipefail
checkout=${PYTHONPATH%%:*}/..  # the Snakefile puts its workflow/ first on PYTHONPATH
unset PYTHONPATH
python -m pip install --require-hashes --requirement "$checkout/requirements.lock"
python -m pip install --no-deps --no-build-isolation --editable "$checkout"
