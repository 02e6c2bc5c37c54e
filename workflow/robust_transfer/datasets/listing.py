"""The catalogue of datasets as text: which there are, which are on this machine, and where to get the others."""

from __future__ import annotations

import textwrap
from pathlib import Path

from robust_transfer.configuration.catalogue.datasets import Catalogued, Counts, catalogue, catalogued
from robust_transfer.configuration.datasets import CatalogueOrigin
from robust_transfer.datasets.finding import missing, present_source

COLUMNS = 100  # of text, so that it fits terminals and can be read


def overview(data: Path) -> str:
    """One line per dataset and split: classes, images, disk space, and whether it is below the folder `data`."""
    lines = [f"{'dataset':<12}{'split':<10}{'classes':>8}{'train':>11}{'validation':>12}{'test':>8}{'GB':>7}  on disk"]
    for name, known in catalogue().datasets.items():
        for split, rule in known.splits.items():
            there = "yes" if present_source(_origin(name, split), data / name) else "–"
            about = f"{name:<12}{split:<10}{known.classes:>8,}"
            lines.append(f"{about}{_columns(rule.counts)}{known.megabytes / 1000:>7.1f}  {there}")
    return "\n".join(lines)


def describe_dataset(name: str, data: Path) -> str:
    """Everything that the catalogue says of a dataset. Raises ValueError for one that it does not have."""
    known = catalogued(name)
    lines = [f"{known.title} ({known.homepage})", *_facts(known)]
    for split, rule in known.splits.items():
        counts = ", ".join(f"{count:,} {part}" for part, count in rule.counts.model_dump().items() if count)
        doubt = "" if rule.counts_certain else " (not certain)"
        lines += ["", f"split {split}: {counts}{doubt}", *_wrapped(rule.says)]
        source = present_source(_origin(name, split), data / name)
        if source:
            lines += _wrapped(f"On this machine, in {data / name}: {source.described}.")
        else:
            lines += [
                line for part in missing(_origin(name, split), data / name).splitlines() for line in _wrapped(part)
            ]
    return "\n".join(lines)


def _origin(name: str, split: str) -> CatalogueOrigin:
    return CatalogueOrigin.model_validate({"kind": "catalogue", "dataset": name, "split": split})


def _columns(counts: Counts) -> str:
    validation = f"{counts.validation:,}" if counts.validation else "–"
    return f"{counts.train:>11,}{validation:>12}{counts.test:>8,}"


def _facts(known: Catalogued) -> list[str]:
    facts = {
        "classes": f"{known.classes:,}",
        "metric": {"top1": "top-1", "mean_per_class": "mean per class"}[known.metric],
        "licence": known.licence,
        "space": f"{known.megabytes:,} MB",
        "no longer works": known.dead,
        "remarks": known.remarks,
    }
    return [line for fact, text in facts.items() if text for line in _wrapped(f"{fact}: {text}")]


def _wrapped(text: str) -> list[str]:
    """Lines broken only between words, so that paths and addresses can be copied."""
    wrapper = textwrap.TextWrapper(
        COLUMNS, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(" ".join(text.split()))
