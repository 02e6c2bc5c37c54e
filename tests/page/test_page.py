"""The page of an experiment: whole, safe against whatever labels hold, and of use where much was not measured."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from robust_transfer.figures.labels import signed
from robust_transfer.page.content import Content
from robust_transfer.page.document import document
from robust_transfer.page.rows import explorer, headline_charts, sources, training_curves
from robust_transfer.stages.claims import write_claims
from robust_transfer.stages.figures import draw
from robust_transfer.stages.page import write_page
from robust_transfer.tables.errors import TableError
from robust_transfer.tables.experiment_info import ExperimentInfo
from robust_transfer.tables.results import as_results, read_results
from robust_transfer.tables.training import read_training
from support.browser import CHROMIUM, browser
from support.fake_entries import Fake, trained

IMAGES = 200
FIGURES = ("headline", "fixed_feature", "width")
TOO_EASY = '<img src=x onerror="document.title=1">'


def measured(root: Path, *, eps=("0", "0.25", "1"), modes=("probing", "finetuning"), targets=("coarse", "fine"), **of):
    fake = Fake(root, targets=targets, **of)
    for place, radius in enumerate(eps):
        fake.backbone(trained(3, robust=radius != "0"), eps=radius)
        fake.source(90 - 10 * place, eps=radius)
        for mode in modes:
            for other, target in enumerate(targets):
                right = [(40 + 15 * place + 3 * other + 2 * (mode == "finetuning")) > i / 2 for i in range(fake.images)]
                fake.transfer(right, right, mode, target=target, eps=radius)
    return fake


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A results folder with tables, ledger and three figures."""
    root = tmp_path_factory.mktemp("experiment")
    return filled(
        measured(root, title=f"Of {TOO_EASY}", labels={"coarse": f"Coarse {TOO_EASY} </script>", "fine": "Fine"})
    )


def filled(fake):
    results = fake.collect()
    write_claims(results, results.parent / "claims")
    for name in FIGURES:
        draw(name, results, results.parent / "figures" / name)
    return results.parent


@pytest.fixture(scope="module")
def page(folder):
    write_page(folder, folder / "index.html")
    return folder / "index.html"


class Outline(HTMLParser):
    """Headings, addresses, identifiers and texts of alternatives in a document."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.addresses, self.alternatives = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[name] for name in ("src", "href") if name in found]
        self.alternatives += [found.get("alt", "")] if tag == "img" else []


def test_it_is_one_file_that_asks_for_nothing(page):
    text = page.read_text()
    outline = Outline(text)
    assert all(one.startswith(("data:", "#")) for one in outline.addresses)
    assert {one for one in outline.addresses if one.startswith("#")} <= {f"#{name}" for name in outline.ids}
    assert len(outline.ids) == len(set(outline.ids))
    assert min(map(len, outline.alternatives)) > 40
    assert page.stat().st_size < 10_000_000
    assert "default-src &#39;none&#39;" in text
    assert "unsafe-eval" not in text


def test_labels_are_text_wherever_they_stand(page):
    assert TOO_EASY not in page.read_text()
    assert "x onerror" in page.read_text()


def test_its_downloads_are_the_files(page, folder):
    addresses = Outline(page.read_text()).addresses
    contents = {base64.b64decode(one.partition("base64,")[2]) for one in addresses if one.startswith("data:")}
    for name in ("headline.tex", "headline.csv", "width.pdf", "width.svg", "fixed_feature.csv"):
        assert (folder / "figures" / name).read_bytes() in contents


def test_the_headline_chart_has_the_numbers_of_the_table(folder):
    drawn = pd.read_csv(folder / "figures" / "headline.csv")
    differences = drawn[drawn["series"] == "difference"]
    shown = [row for _, chart in headline_charts(read_results(folder / "results.parquet")) for row in chart.rows]
    assert [row["difference"] for row in shown] == pytest.approx(differences["value"].tolist(), abs=1e-3)
    assert [row["low"] for row in shown] == pytest.approx(differences["ci_low"].tolist(), abs=1e-3)


def test_the_explorer_has_every_transfer_once(folder):
    results = read_results(folder / "results.parquet")
    own = results[(results["mode"] != "source") & results["eps_value"].notna() & (results["metric"] == "top1")]
    own = own[own["split"] == "test"]
    chart = explorer(results)
    assert chart
    assert len(chart.rows) == len(own[own["arch"].astype("string") != "best"])
    assert {row["role"] for row in chart.rows} == {"standard", "best robust", "other"}
    assert [one.column for one in chart.controls] == ["target", "mode", "protocol"]


def test_curves_and_source_accuracies_are_those_of_the_tables(folder):
    training = read_training(folder / "training.parquet")
    drawn = training_curves(training)
    assert drawn
    losses = [row["value"] for row in drawn.rows if row["quantity"] == "Training loss"]
    assert losses == pytest.approx(training["loss"].tolist(), abs=1e-4)
    assert [row["values"]["clean"] for row in sources(read_results(folder / "results.parquet"))] == [
        "90.0", "80.0", "70.0",
    ]  # fmt: skip


def test_texture_robust_networks_are_no_standard_ones(folder):
    results = read_results(folder / "results.parquet")
    first = results[(results["eps"] == "0") & (results["arch"].astype("string") != "best")]
    called = "texture-robust, stylized images"
    info = replace(ExperimentInfo.of(results), texture_robust={"texture-robust-stylized": called})
    robust = first.assign(recipe="texture-robust-stylized", value=33.0)
    every = as_results(pd.concat([results, robust]), info)
    chart, before = explorer(every), explorer(results)
    assert chart
    assert before
    added = [row for row in chart.rows if row["role"] == "texture-robust"]
    assert len(added) == len(chart.rows) - len(before.rows) == 4
    assert {row["architecture"] for row in added} == {f"ResNet-8 w8, {called}"}
    assert {row["series"] for row in added}.isdisjoint(row["series"] for row in before.rows)
    assert [row["values"]["clean"] for row in sources(every)] == ["90.0", "80.0", "70.0", "33.0"]
    assert sources(every)[-1]["architecture"] == f"ResNet-8 w8, {called}"
    training = read_training(folder / "training.parquet")
    training.attrs["experiment"] = info.as_json()
    curves = training_curves(training.assign(recipe="texture-robust-stylized"))
    assert curves
    assert {row["backbone"].partition(", ε")[0] for row in curves.rows} == {f"ResNet-8 w8, {called}"}


def test_the_ledger_rounds_as_the_terminal_does(page, folder):
    claims = json.loads((folder / "claims.json").read_text())["claims"]
    one = next(claim for claim in claims if claim["claim"] == "fixed-robust-ahead")
    shown = f"{signed(one['effect'])} [{signed(one['ci_low'])}, {signed(one['ci_high'])}]"
    assert shown in page.read_text()
    assert one["p_adjusted"] < 1e-4
    assert "&lt; 0.0001" in page.read_text()


@pytest.mark.parametrize(
    ("of", "says"),
    [
        ({"eps": ("0",)}, "were not both measured on any target"),
        ({"eps": ("0.25", "1")}, "were not both measured on any target"),
        ({"eps": ("0", "1"), "targets": ("coarse",), "modes": ("finetuning",)}, "Full-network"),
        ({"eps": ("0", "1"), "modes": ()}, "were not both measured on any target"),
    ],
)
def test_what_was_not_measured_is_said(tmp_path, of, says):
    folder = filled(measured(tmp_path, **of))
    assert says in document(Content.of(folder))


def test_without_ledger_figures_and_texts_it_shows_the_numbers(tmp_path):
    results = measured(tmp_path).collect()
    text = document(Content.of(results.parent))
    assert "No claim about this question could be tested" in text
    assert "Explore every number" in text


def test_outside_a_checkout_it_names_the_version(folder, monkeypatch):
    monkeypatch.setattr("robust_transfer.page.document.software", lambda: {"version": "7.8.9"})
    assert "robust-transfer 7.8.9." in document(Content.of(folder))


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(TableError, match=r"results\.parquet"):
        Content.of(tmp_path)


def test_the_same_content_gives_the_same_bytes(page, folder):
    assert document(Content.of(folder)) == page.read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
class TestInABrowser:
    """In a headless Chromium, at the widths of a desktop and of a phone."""

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, page, tmp_path_factory):
        with browser(tmp_path_factory.mktemp("browser")) as tab:
            yield tab, page

    @pytest.mark.parametrize("width", [1400, 390])
    def test_nothing_goes_wrong_and_nothing_is_asked_for(self, opened, width):
        tab, page = opened
        tab.open(page, width=width)
        tab.wait_for(DRAWN)
        assert tab.errors == []
        assert tab.requests == [page.resolve().as_uri()]
        assert tab.run("document.documentElement.scrollWidth") <= width
        assert tab.run("document.title").startswith("Of <img")
        paint = tab.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        assert paint < 2000

    def test_every_control_changes_chart_and_table(self, opened):
        tab, page = opened
        tab.open(page, width=1400)
        tab.wait_for(DRAWN)
        selects = tab.run("document.querySelectorAll('.chart select').length")
        assert selects == 4  # target, mode, protocol; what curves are of
        for place in range(selects):
            state = f"document.querySelectorAll('.chart select')[{place}].closest('.chart')"
            both = f"({state}.querySelector('.drawn').innerHTML + {state}.querySelector('tbody').innerText)"
            tab.run(f"window.before = {both}")
            only = tab.run(f"document.querySelectorAll('.chart select')[{place}].options.length")
            another = (
                f"(() => {{ const s = document.querySelectorAll('.chart select')[{place}];"
                "s.selectedIndex = (s.selectedIndex + 1) % s.options.length;"
                "s.dispatchEvent(new Event('change', {bubbles: true})); })()"
            )
            tab.run(another)
            if only > 1:
                tab.wait_for(f"{both} !== window.before")
            assert tab.run(f"{state}.querySelectorAll('tbody tr').length") > 0
        assert tab.errors == []

    def test_the_table_has_the_rows_of_the_chart(self, opened):
        tab, page = opened
        tab.open(page, width=1400)
        tab.wait_for(DRAWN)
        rows = tab.run("[...document.querySelectorAll('#explorer tbody tr')].map(row => row.cells[3].innerText)")
        assert rows == ["40.0", "55.0", "70.0"]

    def test_it_can_be_read_in_the_dark(self, opened):
        tab, page = opened
        tab.open(page, width=1400, dark=True)
        tab.wait_for(DRAWN)
        ground = re.findall(r"\d+", tab.run("getComputedStyle(document.body).backgroundColor"))
        ink = re.findall(r"\d+", tab.run("getComputedStyle(document.querySelector('.drawn svg text')).fill"))
        assert max(map(int, ground[:3])) < 60
        assert min(map(int, ink[:3])) > 180


DRAWN = "document.querySelectorAll('.drawn[data-ready]').length === document.querySelectorAll('.drawn').length"
