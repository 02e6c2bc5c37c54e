"""The container image that jobs run in under `snakemake --sdm apptainer`."""

from __future__ import annotations

from robust_transfer.configuration.load import ConfigurationError
from robust_transfer.configuration.paths import resolved
from robust_transfer.configuration.running import Running
from robust_transfer.dag.engine import Engine


def image(running: Running, engine: Engine) -> str | None:
    """Address or path of the image, as Snakemake's `container` takes it; None if there is none.

    Raises ConfigurationError if jobs are to run in a container and no image is named, or it is not there: Snakemake
    would run them outside, or each of them would fail.
    """
    stated = running.container
    is_address = stated is not None and "://" in stated
    found = stated if stated is None or is_address else str(resolved(stated))
    if not engine.uses_containers:
        return found
    if found is None:
        raise ConfigurationError(
            "--sdm apptainer: running.container names no image; build one with `apptainer build robust-transfer.sif "
            "envs/robust-transfer.def`, and set running: {container: robust-transfer.sif}"
        )
    if not is_address and not resolved(found).exists():
        raise ConfigurationError(
            f"running.container = {stated}: no such file; `apptainer build {stated} envs/robust-transfer.def` makes it"
        )
    return found
