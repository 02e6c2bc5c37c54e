"""The page as one HTML document, which asks for nothing: scripts, styles, pictures and files are in it.

A content security policy allows those scripts alone whose digests it names. Vega's expressions are interpreted
(`ast: true`), so that nothing needs `eval`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from robust_transfer.figures.labels import p_text, rounded_up, signed
from robust_transfer.page.charts import Chart
from robust_transfer.page.content import Content, costs, flagged, provenance
from robust_transfer.page.files import data_uri
from robust_transfer.page.rows import explorer, headline_charts, sources, training_curves
from robust_transfer.store.provenance import software

FOLDER = Path(__file__).parent
QUESTION = "Do adversarially robust networks transfer better than standard ones?"
VERDICTS = {"holds": "good", "agrees": "good", "fails": "bad", "disagrees": "bad", "undecided": "open"}
"""How a verdict is coloured; the word itself stands in the table."""
DECIMALS = {"points": 1, "steps of eps": 0}
"""Of effects, by their unit; of others two."""
COUNTED = {"images": "test images", "seeds": "seeds"}
"""What would decide, by what the interval is over; else networks."""


def document(content: Content) -> str:
    """The page. The same content gives the same bytes, for one version of the libraries."""
    headline = headline_charts(content.results)
    charts = [chart for _, chart in headline]
    charts += [chart for chart in (explorer(content.results), training_curves(content.training)) if chart]
    by_name = {chart.name: chart for chart in charts}
    configuration = _yaml(content.described.get("configuration", {}))
    scripts = [vega(), (FOLDER / "page.js").read_text(encoding="utf-8")]
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        content=content,
        about=content.about,
        question=QUESTION,
        answer=content.ledger.get("answer", ""),
        claims=content.ledger.get("claims", []),
        verdicts=VERDICTS,
        headline=headline,
        explorer=by_name.get("explorer"),
        curves=by_name.get("curves"),
        sources=sources(content.results),
        costs=costs(content.timings),
        provenance=provenance(content.timings),
        software=software(),
        flagged=flagged(content.flags),
        methods=Markup(_from_rst(content.described.get("methods", ""))),
        configuration=configuration,
        configuration_uri=data_uri("yaml", configuration.encode()),
        scripts=[Markup(script) for script in scripts],
        style=Markup(style),
        policy=_policy(scripts),
        embedded=_embedded,
        safe=Markup,
        effect_text=_effect,
        p_text=p_text,
        rounded_up=rounded_up,
        counted=COUNTED,
    )


@cache
def vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script that defines `vegaEmbed`: 0.9 MB."""
    import altair
    import vl_convert

    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    script: str = vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg]  # its stub lacks the default
    return script.replace("</script", "<\\/script")


def _policy(scripts: list[str]) -> str:
    digests = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _embedded(chart: Chart) -> Markup:
    """A chart as JSON in a block of data: no text in it can end the block."""
    described = {
        "spec": chart.spec,
        "controls": [{"name": one.name, "column": one.column, "all": one.with_all} for one in chart.controls],
        "columns": list(chart.columns),
        "rows": list(chart.rows),
    }
    text = json.dumps(described, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _from_rst(text: str) -> str:
    """The body of a text in reStructuredText, in which nothing may be included or raw."""
    from docutils.core import publish_parts

    overrides = {"file_insertion_enabled": False, "raw_enabled": False, "report_level": 5, "initial_header_level": 3}
    found: Mapping[str, Any] = publish_parts(text, writer="html5", settings_overrides=overrides)
    return str(found["body"])


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)


def _effect(claim: Mapping[str, Any]) -> str:
    """The effect that decides with its interval, if it has one: points to one decimal, and steps of eps whole."""
    decimals = DECIMALS.get(claim["unit"], 2) + (claim["unit"] == "points" and claim["basis"] == "published means")
    low, high = claim["ci_low"], claim["ci_high"]
    ends = "" if low is None else f" [{signed(low, decimals)}, {signed(high, decimals)}]"
    return f"{signed(claim['effect'], decimals)}{ends}"
