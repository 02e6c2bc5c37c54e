"""The version stands in one place, and whatever names it agrees."""

import re
import tomllib

import yaml
from robust_transfer import __version__
from setuptools.config.pyprojecttoml import read_configuration
from support.paths import ROOT


def test_the_build_reads_the_version_from_the_package() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in stated
    assert read_configuration(ROOT / "pyproject.toml")["project"]["version"] == __version__


def test_the_citation_names_the_version() -> None:
    assert str(yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]) == __version__


def test_the_newest_section_of_the_changelog_is_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    versions = [heading for heading in headings if heading[0] != "Unreleased"]
    assert versions[0][0] == __version__
    assert re.fullmatch(r" - (unreleased|\d{4}-\d{2}-\d{2})", versions[0][1])
