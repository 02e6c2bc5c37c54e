"""What cannot be stylized is found out before any job, in one message each."""

from pathlib import Path
from typing import Any

import pytest
import torch
from robust_transfer.configuration.load import ConfigurationError, load
from robust_transfer.dag.about import about
from robust_transfer.dag.availability import absent
from robust_transfer.dag.grid import Grid, plan
from robust_transfer.dag.stylized import unusable
from robust_transfer.dag.wiring import Wiring
from robust_transfer.store.made import page_made_from
from support.prepared_datasets import encoded, pixels
from support.style_networks import small_networks, write_networks


def grid(root: Path, **stylizing: Any) -> Grid:
    """A world whose source is to be stylized in the style of `paintings`."""
    paintings = {"kind": "folder", "path": str(root / "paintings"), "labelled": False}
    over = {
        "datasets": {"paintings": {"origin": paintings}},
        "stylizing": {"styles": "paintings", **stylizing},
        "grid": [{"architectures": ["resnet8_w8"], "eps": [0], "source_views": ["stylized"], "modes": []}],
        "figures": {"draw": ["texture"], "widths": []},
        "running": {"weights": str(root / "weights")},
        "store": str(root / "store"),
        "results": str(root / "results"),
    }
    return plan(load([], over))


def paint(root: Path, n: int) -> None:
    (root / "paintings").mkdir(exist_ok=True)
    for i in range(n):
        (root / "paintings" / f"{i}.png").write_bytes(encoded(pixels(30, 30, seed=i)))


def test_style_folders_without_images_or_with_one(tmp_path: Path) -> None:
    [message] = absent(grid(tmp_path, method="phase"))
    assert message.endswith(
        f": datasets.paintings.origin.path = {tmp_path / 'paintings'}: no such folder (from {Path.cwd()}); put or link "
        "the images there, or write where they are"
    )
    paint(tmp_path, 0)
    (message,) = unusable(grid(tmp_path, method="phase"))
    assert message.startswith(f"stylizing.styles = paintings: {tmp_path / 'paintings'}: no images")
    paint(tmp_path, 1)
    (message,) = unusable(grid(tmp_path, method="phase"))
    assert message.startswith("stylizing.styles = paintings: 1 training image; styles are drawn from two or more")
    paint(tmp_path, 2)
    assert unusable(grid(tmp_path, method="phase")) == []


def test_files_of_encoder_and_decoder_that_are_not_there(tmp_path: Path) -> None:
    paint(tmp_path, 2)
    of = {"method": "adain", "encoder": "vgg.pth", "decoder": "$HOME/no/decoder.pth"}
    first, second = absent(grid(tmp_path, **of))
    assert first.startswith(
        f"stylizing.encoder = vgg.pth: {tmp_path / 'weights' / 'vgg.pth'}: no such file; fetch vgg_n"
    )
    assert second.startswith(
        f"stylizing.decoder = $HOME/no/decoder.pth: {Path.home() / 'no/decoder.pth'}: no such file"
    )
    assert absent(grid(tmp_path, method="phase")) == []
    assert len(absent(grid(tmp_path, **of), stated=True)) == 2
    usual = grid(tmp_path, method="adain")  # a dry run tells of it and goes on
    assert (len(absent(usual, stated=True)), len(absent(usual, stated=False))) == (0, 2)


def test_networks_that_do_not_fit_stop_a_run_before_anything_is_written(tmp_path: Path) -> None:
    paint(tmp_path, 2)
    write_networks(tmp_path / "weights" / "adain")
    assert unusable(grid(tmp_path, method="adain")) == []
    torch.save(small_networks(width=12)[1].state_dict(), tmp_path / "weights" / "adain" / "decoder.pth")
    with pytest.raises(ConfigurationError, match=r"^stylizing: .*decoder.pth: decodes 12 channels, where .* into 8; "):
        Wiring(grid(tmp_path, method="adain")).prepare()
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "results").exists()


def test_the_page_shows_the_contact_sheet_and_is_made_again_when_it_changes(tmp_path: Path) -> None:
    paint(tmp_path, 2)
    planned = grid(tmp_path, method="phase")
    wiring = Wiring(planned)
    [entry] = [one for one in planned.entries if one.startswith("stylizing/")]
    described = about(planned)
    assert described["stylized"]["entries"] == {entry: "Objects"}
    assert described["stylized"]["caption"].startswith(
        "First row: test images as they are. Second row: stylized, by phase."
    )
    assert wiring.sheets(None) == [f"{tmp_path}/store/{entry}/card.json"]
    card = tmp_path / "store" / entry / "card.json"
    card.parent.mkdir(parents=True)
    made_from = []
    for content in ("one", "another"):
        card.write_text(content)
        made_from.append(page_made_from(tmp_path / "results", described))
    assert {name for name in made_from[0] if made_from[0][name] != made_from[1][name]} == {"sheets"}
