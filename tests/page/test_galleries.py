"""Galleries on the page: every sheet with its text, and the numbers beside them."""

import base64
import hashlib
import json

import pytest
from page.test_page import Outline, filled, measured
from robust_transfer.page.galleries import HEADINGS, NUMBERS
from robust_transfer.stages.page import write_page
from robust_transfer.store.entry import StoreError
from support.fake_entries import number
from support.prepared_datasets import encoded, pixels

EPS = ("0", "1")


def words(sheet, eps):
    return f"{HEADINGS[sheet]} of a network with eps {eps}, and what there is to be seen in them"


def exhibited(fake, eps):
    """A gallery of the backbone of that eps: sheets, texts and numbers."""
    of = fake.key("evaluation", eps=eps, backbone_seed=0)
    key = {**of, "stage": "gallery", "mode": "gallery"}
    key["entry"] = f"gallery/{of['entry'].partition('/')[2]}"
    rows = [number(40.0, 24, metric=metric, selection=None, interval=[30.0, 50.0]) for metric in NUMBERS]
    entry = fake.add(key, rows, {})
    card_file = fake.root / "store" / entry / "card.json"
    card = json.loads(card_file.read_text())
    card["facts"] = {"title": f"Network {eps}", "alternatives": {sheet: words(sheet, eps) for sheet in HEADINGS}}
    for place, sheet in enumerate(HEADINGS):
        content = encoded(pixels(20, 30, seed=place))
        (card_file.parent / f"{sheet}.png").write_bytes(content)
        card["files"][f"{sheet}.png"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    card_file.write_text(json.dumps(card))
    return entry


@pytest.fixture
def folder(tmp_path):
    fake = measured(tmp_path, eps=EPS, modes=("probing",), targets=("coarse",))
    entries = [exhibited(fake, eps) for eps in EPS]
    folder = filled(fake)
    captions = {sheet: f"Of {sheet}." for sheet in HEADINGS}
    about = {
        "galleries": {"entries": entries, "captions": captions},
        "configuration": {"store": str(fake.root / "store")},
    }
    (folder / "about.json").write_text(json.dumps(about))
    return folder


def test_every_sheet_is_there_with_what_it_shows_in_words(folder):
    write_page(folder, folder / "index.html")
    text = (folder / "index.html").read_text()
    outline = Outline(text)
    assert {words(sheet, eps) for sheet in HEADINGS for eps in EPS} <= {*outline.alternatives}
    pictures = [base64.b64decode(one.partition("base64,")[2]) for one in outline.addresses if "image/png" in one]
    for place, sheet in enumerate(HEADINGS):
        assert f"gallery-{sheet}" in outline.ids
        assert f"Of {sheet}." in text
        assert pictures.count(encoded(pixels(20, 30, seed=place))) == 4  # two networks, each shown and to download
    assert text.count("40.0 [30.0, 50.0]") == len(EPS) * len(NUMBERS)
    assert '<a href="#gallery">' in text


def test_an_altered_sheet_is_refused(folder):
    about = json.loads((folder / "about.json").read_text())
    sheet = next(iter(about["galleries"]["entries"]))
    with open(f"{about['configuration']['store']}/{sheet}/gradients.png", "ab") as file:
        file.write(b"more")
    with pytest.raises(StoreError, match=r"gradients\.png"):
        write_page(folder, folder / "index.html")
