"""Captions of figures and of galleries' sheets, `workflow/report/<name>.rst`, as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FOLDER = Path(__file__).parents[2] / "report"


def caption(name: str, config: Mapping[str, Any]) -> str:
    """A caption in one line, with the settings that Snakemake's report renders the same file with, as `config`."""
    from jinja2 import Template  # Snakemake has imported it; the commands do without

    template = Template((FOLDER / f"{name}.rst").read_text(encoding="utf-8"))
    return " ".join(template.render(snakemake=SimpleNamespace(config=config)).split())
