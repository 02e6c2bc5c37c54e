"""Fake measuring entries: real files in a store, made from chosen accuracies instead of from networks."""

import csv
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FILES = ("metrics.json", "predictions.parquet", "attacked.parquet", "epochs.csv", "runs.csv")
"""Names of outputs."""


@dataclass
class Fake:
    """An experiment in the making under `root`: add entries, then `write()` its experiment file."""

    root: Path
    targets: tuple[str, ...] = ("coarse", "fine")
    architectures: tuple[str, ...] = ("resnet8_w8", "resnet8_w16")
    metric: str = "top1"
    fixed_eps: dict[str, str] = field(default_factory=lambda: {"l2": "0.25"})
    bootstrap: int = 200
    selection: str = "validation"
    """The experiment's first."""
    protocol: str | None = None
    """Of fixed-feature transfer, that figures show."""
    images: int = 200
    classes: int = 4
    title: str = "A fake experiment"
    notice: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    backbones: list[str] = field(default_factory=list)

    @property
    def experiment_json(self) -> Path:
        return self.root / "experiment.json"

    def key(self, stage: str, **of: Any) -> dict[str, Any]:
        eps = of.get("eps", "0")
        norm = "none" if eps == "0" else of.get("norm", "l2")
        key: dict[str, Any] = {
            "stage": stage,
            "source": "objects",
            "target": "objects",
            "arch": self.architectures[0],
            "recipe": "short",
            "backbone_seed": 0,
            "transfer_seed": None if stage == "evaluation" else 0,
            "mode": {"evaluation": "source", "probing": "fixed-feature", "finetuning": "full-network"}[stage],
            "protocol": {"evaluation": None, "probing": "frozen", "finetuning": "paper"}[stage],
            "variant": {"normalisation": "source"} if stage == "finetuning" else {},
            "images_per_class": None,
            **of,
            "eps": eps,
            "norm": norm,
        }
        name = "_".join(str(value).replace("/", "of") for value in key.values() if not isinstance(value, dict))
        name += "".join(f"_{k}{v}" for k, v in sorted(key["variant"].items()))
        backbone = f"pretraining/{key['source']}_{key['arch']}_{norm}_{eps.replace('/', 'of')}_{key['backbone_seed']}"
        return {"entry": f"{stage}/{name}", "backbone": backbone, **key}

    def source(self, accuracy: float, **of: Any) -> str:
        """A backbone evaluated on the source, with this clean accuracy in percent."""
        attack = {"norm": "l2", "eps": "0.25", "steps": 20, "restarts": 1}
        rows = [number(accuracy, self.images, selection=None)]
        rows += [number(accuracy / 2, self.images, selection=None, attack=attack)]
        return self.add(self.key("evaluation", **of), rows, {})

    def backbone(
        self,
        epochs: list[dict[str, Any]],
        *,
        flags: tuple[dict[str, str], ...] = (),
        slow: tuple[dict[str, str], ...] = (),
        timed: bool = True,
        published: float | None = None,
        **of: Any,
    ) -> str:
        """A finished pretraining: rows of `epochs.csv`, flags in the card, and `slow` ones in `timing.json`."""
        entry: str = self.key("evaluation", **of)["backbone"]
        path = self.root / "store" / entry
        path.mkdir(parents=True)
        (path / "entry.json").write_text(json.dumps({"stage": "pretraining", "settings": {}, "inputs": {}}))
        if epochs:
            with open(path / "epochs.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, list(epochs[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(epochs)
        costs = [
            {"epoch": i + 1, "seconds": 2.0, "images_per_second": 500.0 + i, "peak_memory_mb": 300.0}
            for i in range(len(epochs))
        ]
        timing = {"seconds": 9.0, "peak_memory_mb": 300.0, "images": 10, "device": "cpu", "threads": 1}
        timing |= {"epochs": costs} if timed else {}
        timing |= {"flags": list(slow)} if slow else {}
        (path / "timing.json").write_text(json.dumps(timing))
        facts: dict[str, Any] = {"classes": [f"class {i}" for i in range(self.classes)]}
        facts |= {"published_top1": published} if published is not None else {}
        self.seal(path, facts | ({"flags": list(flags)} if flags else {}))
        self.backbones.append(entry)
        return entry

    def transfer(self, test: Any, validation: Any, stage: str = "probing", **of: Any) -> str:
        """A finished transfer: accuracies in percent, or arrays of which images are right."""
        sides = {"test": self.right(test, "test", str(of)), "validation": self.right(validation, "validation", str(of))}
        rows: list[dict[str, Any]] = []
        columns: dict[str, list[Any]] = {"split": [], "index": [], "label": [], "prediction": []}
        for split, right in sides.items():
            if not len(right):
                continue
            labels = np.arange(len(right)) % self.classes
            predicted = np.where(right, labels, (labels + 1) % self.classes)
            recalls = [right[labels == label].mean() for label in np.unique(labels)]
            for metric, value in (("top1", 100 * right.mean()), ("mean_per_class", 100 * np.mean(recalls))):
                rows.append(number(float(value), len(right), split=split, metric=metric))
            columns["split"] += [split] * len(right)
            columns["index"] += range(len(right))
            columns["label"] += labels.tolist()
            columns["prediction"] += predicted.tolist()
        return self.add(self.key(stage, **of), rows, columns)

    def attacked(self, transfer: str, withstood: dict[str, Any], images: int = 50, norm: str = "l2") -> str:
        """The model of a transfer under attack.

        Args:
            transfer: What `transfer` returned.
            withstood: By radius (`0`: as they are) which of the first test images are right, or accuracies in percent.
            images: How many of them are attacked.
            norm: Of the attacks.
        """
        key = next(entry for entry in self.entries if entry["entry"] == transfer)
        rows: list[dict[str, Any]] = []
        columns: dict[str, list[Any]] = {
            name: [] for name in ("model", "attack", "split", "index", "label", "prediction")
        }
        for eps, wanted in withstood.items():
            right, labels = self.right(wanted, "test", transfer)[:images], np.arange(images) % self.classes
            of_kind = {"kind": "none"} if eps == "0" else {"steps": 20}
            attack = {"eps": eps, **of_kind, "norm": norm}
            recalls = [right[labels == label].mean() for label in np.unique(labels)]
            for metric, value in (("top1", 100 * right.mean()), ("mean_per_class", 100 * np.mean(recalls))):
                rows.append({**number(float(value), images, metric=metric, attack=attack), "model": transfer})
            columns["model"] += [transfer] * images
            columns["attack"] += [json.dumps(attack, sort_keys=True, separators=(",", ":"))] * images
            columns["split"] += ["test"] * images
            columns["index"] += range(images)
            columns["label"] += labels.tolist()
            columns["prediction"] += np.where(right, labels, (labels + 1) % self.classes).tolist()
        name = f"robustness/{transfer.replace('/', '_')}_{norm}"
        of_entry = {**key, "entry": name, "stage": "robustness", "model": transfer}
        return self.add(of_entry, rows, columns, file="attacked.parquet")

    def right(self, wanted: Any, split: str, salt: str) -> np.ndarray:
        """Which images are right, bool [images]: some images are hard for every network.

        Args:
            wanted: Accuracy in percent, or the answer itself.
            split: Which images are hard depends on it.
            salt: What else they depend on: two networks agree on some images and differ on others.
        """
        if not isinstance(wanted, int | float):
            return np.asarray(wanted, dtype=bool)
        hard = np.random.default_rng(len(split)).standard_normal(self.images)
        digest = hashlib.sha256((split + salt).encode()).digest()
        own = np.random.default_rng(list(digest)).standard_normal(self.images)
        easiest = np.argsort(0.8 * hard + 0.6 * own)
        right = np.zeros(self.images, dtype=bool)
        right[easiest[: round(wanted / 100 * self.images)]] = True
        return right

    def add(
        self,
        key: dict[str, Any],
        rows: list[dict[str, Any]],
        predictions: dict[str, list[Any]],
        file: str = "predictions.parquet",
    ) -> str:
        """Write a finished entry and return its name, `<stage>/<name>`.

        Args:
            key: What `key` returns.
            rows: Of `metrics.json`; see `number`.
            predictions: Columns of `predictions.parquet` by name; empty for an entry without that file.
            file: Another name of that file.
        """
        path = self.root / "store" / key["entry"]
        path.mkdir(parents=True)
        (path / "entry.json").write_text(json.dumps({"stage": key["stage"], "settings": {}, "inputs": {}}))
        (path / "metrics.json").write_text(json.dumps(rows))
        if predictions:
            types = {"index": pa.int32(), "label": pa.int32(), "prediction": pa.int32()}
            columns = {name: pa.array(values, types.get(name, pa.string())) for name, values in predictions.items()}
            pq.write_table(pa.table(columns), path / file)
        timing = {"seconds": 1.5, "peak_memory_mb": 100.0, "images": 10, "device": "cpu", "threads": 1, "shards": 2}
        (path / "timing.json").write_text(json.dumps(timing))
        self.seal(path)
        self.entries.append(key)
        return str(key["entry"])

    def seal(self, path: Path, facts: dict[str, Any] | None = None) -> None:
        """Write the card of the entry's outputs as they are now."""
        outputs = [p for p in path.iterdir() if p.name in FILES]
        files = {
            p.name: {"bytes": p.stat().st_size, "sha256": hashlib.sha256(p.read_bytes()).hexdigest()} for p in outputs
        }
        card = {"entry": path.name, "files": files, "facts": facts or {}, "code": "abcdef012345", "provenance": {}}
        (path / "card.json").write_text(json.dumps(card))

    def write(self) -> Path:
        """Write the experiment file, and backbones of one old epoch where there are none; return its path."""
        for entry in self.entries:
            if entry["backbone"] not in self.backbones:
                of = {name: entry[name] for name in ("source", "arch", "eps", "norm", "backbone_seed")}
                self.backbone([{"epoch": 1, "loss": 0.4, "train_accuracy": 40.0, "learning_rate": 0.1}], **of)
        described = {
            "experiment": "fake",
            "title": self.title,
            "notice": self.notice,
            "store": "store",
            "input_size": 32,
            "source": {"name": "objects", "label": "Objects"},
            "targets": [
                {"name": name, "label": self.labels.get(name, name.capitalize()), "metric": self.metric}
                for name in self.targets
            ],
            "architectures": list(self.architectures),
            "widths": list(self.architectures),
            "fixed_eps": self.fixed_eps,
            "bootstrap": self.bootstrap,
            "selection": self.selection,
            "protocol": self.protocol,
            "draw": ["headline"],
            "entries": self.entries,
            "costs": self.backbones + [entry["entry"] for entry in self.entries],
        }
        self.experiment_json.write_text(json.dumps(described))
        return self.experiment_json

    def collect(self) -> Path:
        """Write the experiment file, run the results stage, and return the results table; the others lie beside it."""
        from robust_transfer.stages.results import collect

        tables = {name: self.root / f"{name}.parquet" for name in ("results", "timings", "training")}
        collect(self.write(), self.root / "store", **tables, flags=self.root / "flags.csv")
        return tables["results"]


def trained(epochs: int, *, robust: bool = True, every: int = 1, **of: Any) -> list[dict[str, Any]]:
    """Rows of `epochs.csv` of a training that goes well, checked every so many epochs."""
    rows = []
    for epoch in range(1, epochs + 1):
        done, checked = epoch / epochs, epoch % every == 0 or epoch == epochs
        rows.append(
            {
                "epoch": epoch,
                "side": 32,
                "loss": round(1.6 - 1.3 * done, 6),
                "train_accuracy": round(10 + 50 * done, 4),
                "clean_accuracy": round(12 + 70 * done, 4) if checked else "",
                "robust_accuracy": round(10 + 35 * done, 4) if checked and robust else "",
                "learning_rate": 0.1 * (1 - done) + 0.001,
                **of,
            }
        )
    return rows


def number(value: float, n: int, **of: Any) -> dict[str, Any]:
    """A row of metrics.json."""
    half = 196 * (value / 100 * (1 - value / 100) / n) ** 0.5
    return {
        "split": "test",
        "metric": "top1",
        "value": value,
        "ci_low": max(0.0, value - half),
        "ci_high": min(100.0, value + half),
        "ci_kind": "images",
        "n": n,
        "selection": "validation",
        "attack": None,
        "hyperparameters": {"strength": 0.01},
        **of,
    }
