"""Where the files of published weights are on this machine, and their downloads.

Files are below the folder `running.weights`, under the names they were published with; torchvision's are also looked
for in the cache of torch.hub. Their content is not read here.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_transfer.configuration.catalogue.weights import weights_catalogue
from robust_transfer.configuration.weights import (
    AresWeights,
    FileWeights,
    ImportingSettings,
    ReleasedWeights,
    RobustBenchWeights,
    StylizedWeights,
    TimmWeights,
    TorchvisionWeights,
    named_file,
    published_model,
    released_file,
    stylized_file,
    timm_weights,
)
from robust_transfer.store.entry import sha256


class WeightsError(ValueError):
    """Weights are missing or cannot be downloaded; the message says what to download and where to put it."""


@dataclass(frozen=True)
class PublishedFile:
    """A file of weights: its path on this machine, and where it is published."""

    path: str
    """Below the folder of weights."""
    url: str | None = None
    sha256: str | None = None
    """The first digits of its SHA-256, which its owners wrote into its name."""
    repository: str | None = None
    """On the Hugging Face Hub; `file` is its path there."""
    file: str | None = None
    licence: str | None = None
    """None where none is stated."""

    @property
    def home(self) -> str | None:
        """The page or folder where it and others like it are published."""
        if self.repository:
            return f"https://huggingface.co/{self.repository}"
        return self.url.rpartition("/")[0] if self.url else None

    @property
    def address(self) -> str:
        """The address to download it from by hand."""
        if self.repository:
            return f"https://huggingface.co/{self.repository}/resolve/main/{self.file}"
        return self.url or "an unknown address"


def published_file(settings: ImportingSettings) -> PublishedFile:
    """The file behind a backbone. Imports torchvision or timm where the weights are theirs; raises WeightsError."""
    weights, architecture = settings.weights, settings.architecture
    if isinstance(weights, ReleasedWeights):
        known = weights_catalogue().released
        file = released_file(architecture, settings.norm or "l2", settings.eps)
        return PublishedFile(file, repository=known.repository, file=file, licence=known.licence)
    if isinstance(weights, StylizedWeights):
        url = stylized_file(weights, architecture)
        name = url.rpartition("/")[2]
        return PublishedFile(name, url=url, sha256=_digits(name))
    if isinstance(weights, RobustBenchWeights | AresWeights):
        model = published_model(weights)
        return PublishedFile(model.file, url=model.url, licence=model.licence)
    if isinstance(weights, FileWeights):
        return PublishedFile(named_file(weights, architecture, settings.norm, settings.eps, settings.seed))
    if isinstance(weights, TimmWeights):
        return _timm(architecture, timm_weights(weights, architecture))
    return _torchvision(architecture, weights.weights)


def located(settings: ImportingSettings, folder: Path, *, downloads: bool) -> tuple[Path, PublishedFile]:
    """The file on this machine, downloaded if it is missing and that is allowed; raises WeightsError otherwise."""
    file = published_file(settings)
    path = folder / file.path
    for there in (path, *([_hub() / path.name] if isinstance(settings.weights, TorchvisionWeights) else [])):
        if there.is_file():
            _check(there, file)
            return there, file
    if downloads and file.repository and file.file:
        _from_hugging_face(file.repository, file.file, path)
    elif downloads and file.url:
        from robust_transfer.datasets.fetching.downloads import RemoteFile, fetch

        fetch(RemoteFile(_direct(file.url), name=path.name, sha256_prefix=file.sha256), path.parent)
    else:
        raise WeightsError(missing_weights(settings, folder))
    return path, file


def is_present(settings: ImportingSettings, folder: Path) -> bool:
    """Whether the file is there; torchvision's and timm's, whose names take an import to know, count as there."""
    if isinstance(settings.weights, TorchvisionWeights | TimmWeights):
        return True
    return (folder / published_file(settings).path).is_file()


def missing_weights(settings: ImportingSettings, folder: Path) -> str:
    """The message for weights that are missing: what to download and where to put it."""
    file = published_file(settings)
    name = f"{settings.architecture}, {settings.norm} eps {settings.eps}" if settings.norm else settings.architecture
    there = "a folder, where a file is needed" if (folder / file.path).is_dir() else "no such file"
    text = f"{folder / file.path}: {there}, and it holds the weights of {name}; "
    if file.url or file.repository:
        return text + f"fetch {file.address} and put it there, or set running: {{downloads: true}}"
    return text + "put it there, or correct weights and running.weights in the configuration"


def _direct(url: str) -> str:
    """The address of a file itself, where Google Drive has a page that asks before it gives a large one."""
    asking = "https://drive.google.com/uc?id="
    if not url.startswith(asking):
        return url
    return f"https://drive.usercontent.google.com/download?id={url.removeprefix(asking)}&export=download&confirm=t"


def _check(path: Path, file: PublishedFile) -> None:
    """Raise WeightsError for a file whose checksum is not the one in its name."""
    if file.sha256 and not (digits := sha256(path)).startswith(file.sha256):
        raise WeightsError(
            f"{path}: its SHA-256 begins with {digits[:8]} and not with {file.sha256}, which its name contains; it "
            f"was cut short or altered: remove it, and fetch {file.address}"
        )


def _from_hugging_face(repository: str, file: str, path: Path) -> None:
    """Download with the Hub's own library, which knows its mirrors, terms of use and logins."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise WeightsError(
            f"{path}: not there, and downloading it from the Hugging Face Hub needs the library huggingface_hub: "
            "run `make setup EXTRAS=huggingface`"
        )
    import huggingface_hub

    try:
        downloaded = Path(huggingface_hub.hf_hub_download(repository, file, local_dir=path.parent))
    except (OSError, ValueError, RuntimeError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise WeightsError(
            f"{repository}: {file} could not be downloaded ({' '.join(str(error).split())}); put it at {path} by other "
            "means"
        ) from error
    if downloaded != path:
        downloaded.replace(path)


def _torchvision(architecture: str, name: str) -> PublishedFile:
    from torchvision.models import get_model_weights

    known = get_model_weights(architecture)
    if name not in known.__members__:
        raise WeightsError(f"weights {name}: torchvision's {architecture} has {', '.join(known.__members__)}")
    url = known[name].url
    file = url.rpartition("/")[2]
    return PublishedFile(file, url=url, sha256=_digits(file), licence="BSD-3-Clause")


def _timm(architecture: str, name: str) -> PublishedFile:
    import timm

    config: Any = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if config is None or not (config.hf_hub_id or config.url):
        others = ", ".join(f"timm_{other}" for other in timm.list_pretrained(f"{name.partition('.')[0]}.*"))
        raise WeightsError(
            f"{architecture}: timm has no weights of it; "
            + (f"it has those of {others}" if others else "train it here, or take another architecture")
        )
    full = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    if config.hf_hub_id:
        file = config.hf_hub_filename or "model.safetensors"
        return PublishedFile(
            f"timm/{full}/{file}", repository=config.hf_hub_id, file=file, licence=getattr(config, "license", None)
        )
    return PublishedFile(f"timm/{full}/{config.url.rpartition('/')[2]}", url=config.url)


def _digits(name: str) -> str | None:
    """The part of a file's name between the last `-` and the suffix, if it can be the first digits of a SHA-256."""
    digits = name.partition(".pth")[0].rpartition("-")[2]
    return digits if len(digits) >= 8 and set(digits) <= set("0123456789abcdef") else None


def _hub() -> Path:
    """The folder in which torch.hub keeps torchvision's downloads."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    return Path(os.environ.get("TORCH_HOME", cache)).expanduser() / "hub" / "checkpoints"
