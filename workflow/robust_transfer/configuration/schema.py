"""The JSON schema of a configuration file, generated from the models, for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from robust_transfer.configuration.experiment import Experiment
from robust_transfer.configuration.files import EXTENDS

PATH = Path(__file__).with_name("schema.json")


def schema() -> dict[str, Any]:
    """The schema of a configuration file: nothing is required, since a file may state only what differs from others."""
    found = Experiment.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found.pop("required", None)
    names: dict[str, Any] = {
        "type": "string",
        "description": "A file, relative to this one, or `default`: config.yaml.",
    }
    found["properties"][EXTENDS] = {
        "anyOf": [names, {"type": "array", "items": names}],
        "description": "Files that this one builds upon: it states what differs from them.",
    }
    return found


def text() -> str:
    """The schema as it stands in `schema.json`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
