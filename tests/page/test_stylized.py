"""Contact sheets of stylized images on the page: whole where they are small, within a budget where they are large."""

import base64
import io
import json

import numpy as np
import pytest
from page.test_page import DRAWN, Outline, filled, measured
from PIL import Image
from robust_transfer.page import stylized
from robust_transfer.stages.page import write_page
from robust_transfer.store.entry import StoreError
from support.browser import CHROMIUM, browser
from support.prepared_datasets import encoded, new_entry, pixels

LARGE = np.random.default_rng(0).integers(0, 256, (900, 1300, 3)).astype(np.uint8)
"""Noise: a PNG of it takes 3.5 MB, as the sheet of photographs of 224 pixels does."""
CAPTION = "First row: test images as they are."


def sheet_of(root, content, **facts):
    """A stylized dataset with this contact sheet."""
    entry = new_entry(root, "stylizing", {})
    with entry.writing() as draft:
        draft.file("samples.png").write_bytes(content)
        draft.facts = {"stylized": {"method": "phase", **facts}}
    return f"stylizing/{entry.path.name}"


@pytest.fixture
def folder(tmp_path):
    fake = measured(tmp_path, eps=("0", "1"), modes=("probing",), targets=("coarse",))
    small = sheet_of(fake.root, encoded(pixels(60, 200)), styles="datasets/paintings-0123456789")
    large = sheet_of(fake.root, encoded(LARGE))
    about = {
        "stylized": {"entries": {small: "Small <b>", large: "Large"}, "caption": CAPTION},
        "configuration": {"store": str(fake.root / "store")},
    }
    folder = filled(fake)
    (folder / "about.json").write_text(json.dumps(about))
    return folder


def pictures(page):
    addresses = [one for one in Outline(page.read_text()).addresses if one.startswith("data:image/")]
    found: dict[str, list[bytes]] = {}
    for one in addresses:
        kind, _, content = one.removeprefix("data:").partition(";base64,")
        found.setdefault(kind, []).append(base64.b64decode(content))
    return found


def test_every_sheet_is_there_with_what_it_shows_in_words(folder):
    write_page(folder, folder / "index.html")
    text, found = (folder / "index.html").read_text(), pictures(folder / "index.html")
    outline = Outline(text)
    assert "stylized" in outline.ids
    assert '<a href="#stylized">' in text
    assert CAPTION in text
    assert "Small &lt;b&gt;" in text
    first, second = (one for one in outline.alternatives if one.startswith("Test images of"))
    assert first.startswith("Test images of Small <b> as they are, and below each of them what phase made of it.")
    assert first.endswith("The third row shows the images that gave the styles.")
    assert second.endswith("made of it.")
    assert found["image/png"].count(encoded(pixels(60, 200))) == 1
    assert "samples.png" in text


def test_a_large_sheet_is_shown_small(folder):
    write_page(folder, folder / "index.html")
    [shown] = pictures(folder / "index.html")["image/jpeg"]
    assert len(encoded(LARGE)) > stylized.BUDGET > 2 * len(shown)
    with Image.open(io.BytesIO(shown)) as image:
        assert image.size == (stylized.WIDTH, round(900 * stylized.WIDTH / 1300))
    assert (folder / "index.html").stat().st_size < 4_000_000


def test_an_altered_sheet_is_refused(folder):
    about = json.loads((folder / "about.json").read_text())
    entry = next(iter(about["stylized"]["entries"]))
    with open(f"{about['configuration']['store']}/{entry}/samples.png", "ab") as file:
        file.write(b"more")
    with pytest.raises(StoreError, match=r"samples\.png"):
        write_page(folder, folder / "index.html")


def test_without_stylized_images_there_is_no_section(folder):
    (folder / "about.json").write_text("{}")
    write_page(folder, folder / "index.html")
    assert 'id="stylized"' not in (folder / "index.html").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_them_and_asks_for_nothing(folder, tmp_path):
    page = folder / "index.html"
    write_page(folder, page)
    with browser(tmp_path / "browser") as tab:
        tab.open(page, width=390)
        tab.wait_for(DRAWN)
        sides = tab.run("[...document.querySelectorAll('#stylized img')].map(one => one.naturalWidth)")
        assert sides == [200, stylized.WIDTH]
        assert tab.errors == []
        assert tab.requests == [page.resolve().as_uri()]
        assert tab.run("document.documentElement.scrollWidth") <= 390
