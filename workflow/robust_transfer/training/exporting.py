"""A transferred model as one safetensors file, and the lines of Python that load it.

Networks of torchvision and timm are written under the names that these libraries give their tensors, so that the lines
need torch and that library, and nothing of this package. Small ResNets are of this package, and their lines need it.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import Template
from typing import Any

from torch import Tensor, nn

from robust_transfer.architectures import small_resnet, timm_name
from robust_transfer.networks.build import Network
from robust_transfer.store.entry import Entry, StoreError, write_bytes, write_text
from robust_transfer.training.transferred import Transferred, load_transferred

MODEL = "model"
"""Key of the metadata, whose value is JSON; with several, safetensors writes them in an order that changes."""
LOADING = Template('''\
"""Load $file: a $architecture of $classes classes, from images float [N, 3, S, S] in [0, 1] to logits."""

import json
from pathlib import Path

$imports
from safetensors import safe_open

with safe_open(Path(__file__).with_name("$file"), "pt") as file:
    about = json.loads(file.metadata()["model"])  # classes, input_size (S), and how it was made
    tensors = {name: file.get_tensor(name) for name in file.keys()}
network = $build.eval()
for name, tensor in network.state_dict().items():
    tensor.copy_(tensors[name])


def model(images):
    return $logits
''')
CLASSES = 'num_classes=len(about["classes"])'
TORCHVISION = {
    "wide_resnet50_4": (
        f"torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [3, 4, 6, 3], width_per_group=256, {CLASSES})"
    ),
    "googlenet": f"torchvision.models.googlenet(aux_logits=False, init_weights=False, {CLASSES})",
    "inception_v3": f"torchvision.models.inception_v3(aux_logits=False, init_weights=False, {CLASSES})",
}
"""How networks are built that torchvision does not build by their name alone."""
OURS = ("maxvit_t",)
"""Networks of torchvision that are of this package all the same: its head has no bias, and ours has one."""


def export(entry: Entry, to: Path, selection: str = "validation") -> Path:
    """Write the model of a transfer to the safetensors file `to`, and beside it, in a file of the same name that ends
    in .py, the lines that load it. Returns the path of the lines.

    Raises StoreError for a name without .safetensors, for a model whose training diverged, as `load_transferred` does,
    and where the disk refuses the files.
    """
    from safetensors.torch import save

    if to.suffix != ".safetensors":
        raise StoreError(
            f"{to}: write a name that ends in .safetensors; the lines that load it get the same name in .py"
        )
    model = load_transferred(entry, selection)
    if model.is_diverged:
        raise StoreError(
            f"{entry.path}: its training diverged, so that there is no model to write; add smaller learning rates"
        )
    architecture = model.network.architecture
    of_package = small_resnet(architecture) or architecture in OURS
    tensors, code = _of_package(model.network) if of_package else _of_library(model.network, model.input_size)
    about = json.dumps(_about(model, entry), sort_keys=True, ensure_ascii=False)
    write_bytes(to, save({name: one.detach().contiguous() for name, one in tensors.items()}, {MODEL: about}))
    lines = to.with_suffix(".py")
    said = {"file": to.name, "architecture": architecture, "classes": str(len(model.classes))}
    write_text(lines, LOADING.substitute(said | code))
    return lines


def _about(model: Transferred, entry: Entry) -> dict[str, Any]:
    return {
        "architecture": model.network.architecture,
        "classes": list(model.classes),
        "input_size": model.input_size,
        "resize_ratio": model.resize_ratio,
        "precision": model.precision,
        "hyperparameters": model.hyperparameters,
        "dataset": model.dataset.name,
        "backbone": model.backbone.name,
        "entry": f"{entry.stage}/{entry.name}",
    }


def _of_package(network: Network) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by their names in this package, and the code that differs from network to network."""
    return network.state_dict(), {
        "imports": "from robust_transfer.networks.build import build",
        "build": f'build("{network.architecture}", len(about["classes"]))',
        "logits": "network(images)",
    }


def _of_library(network: Network, input_size: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by their names in the library that the network is from, and the code."""
    if name := timm_name(network.architecture):
        import timm

        known: Any = timm.get_pretrained_cfg(name)
        imports, head, fixed = "import timm", str(known.classifier), getattr(known, "fixed_input_size", False)
        build = f'timm.create_model("{name}", {CLASSES}{f", img_size={input_size}" if fixed else ""})'
    else:
        usual = f'torchvision.models.get_model("{network.architecture}", {CLASSES})'
        imports, build = "import torchvision", TORCHVISION.get(network.architecture, usual)
        # `build` has put an identity in the place of the head, which is the last layer.
        head = [path for path, layer in network.body.named_modules() if isinstance(layer, nn.Identity)][-1]
    tensors = dict(network.body.state_dict())
    tensors |= {f"{head}.{name}": tensor for name, tensor in network.head.state_dict().items()}
    tensors |= {"normalise.mean": network.normalise.mean, "normalise.std": network.normalise.std}
    logits = 'network((images - tensors["normalise.mean"]) / tensors["normalise.std"])'
    return tensors, {"imports": imports, "build": build, "logits": logits}
