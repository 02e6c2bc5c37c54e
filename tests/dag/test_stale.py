"""What is to be made again, by what cards and records say: exact sets of entries and products."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from robust_transfer.configuration.load import ConfigurationError, validate
from robust_transfer.dag import stale
from robust_transfer.dag.about import about
from robust_transfer.dag.experiment_file import describe
from robust_transfer.dag.grid import Grid, plan
from robust_transfer.dag.stale import Stale, listed
from robust_transfer.dag.wiring import Wiring
from robust_transfer.store.entry import CARD, FINISHED, open_entry, sha256
from robust_transfer.store.fingerprint import fingerprint
from robust_transfer.store.made import digest, digest_of_cards, digest_of_claims, page_made_from, write_made
from robust_transfer.store.upkeep import renew
from support.paths import ROOT

PRODUCTS = ["results", "figure_headline", "claims", "report", "page"]
FILES = {
    "results": ["results.parquet", "timings.parquet", "training.parquet", "backbones.csv", "flags.csv"],
    "figure_headline": [f"figures/headline.{suffix}" for suffix in ("html", "tex", "md", "csv")],
    "claims": ["claims.html"],
    "page": ["index.html"],
    "report": ["summary.txt"],
}


def small(folder: Path) -> Grid:
    shapes = {"kind": "shapes", "train": 40, "test": 40}
    return plan(
        validate(
            {
                "experiment": "small",
                "input_size": 32,
                "datasets": {name: {"origin": {**shapes, "task": name}} for name in ("objects", "coarse")},
                "source": "objects",
                "targets": ["coarse"],
                "grid": [{"architectures": ["resnet8_w4"], "eps": [0], "modes": ["fixed-feature", "full-network"]}],
                "finetuning": {"learning_rates": [0.01]},
                "figures": {"draw": ["headline"]},
                "store": str(folder / "store"),
                "results": str(folder / "results"),
            }
        )
    )


@pytest.fixture
def wiring(tmp_path: Path) -> Wiring:
    """An experiment of which everything is made, by stages that write what they are called."""
    wiring = Wiring(small(tmp_path))
    wiring.write_entries()
    for entry in wiring.grid.entries:
        make(wiring, entry)
    collect(wiring)
    return wiring


def make(wiring: Wiring, entry: str, content: str = "") -> None:
    with open_entry(wiring.store / entry).writing() as draft:
        draft.file("metrics.json").write_text(content or entry)


def collect(wiring: Wiring) -> None:
    folder, grid = wiring.results, wiring.grid
    for product in PRODUCTS:
        for name in FILES[product]:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(name)
    made_from = {"code": fingerprint("results"), "experiment": digest(describe(grid))}
    record(wiring, "results", made_from | {"entries": digest_of_cards(wiring.store, grid.entries)})
    table, flags = sha256(folder / "results.parquet"), sha256(folder / "flags.csv")
    record(wiring, "figure_headline", {"code": fingerprint("figures/headline"), "table": table})
    record(wiring, "claims", {"code": fingerprint("claims"), "results": table, "claims": digest_of_claims()})
    record(wiring, "report", {"code": fingerprint("report"), "results": table, "flags": flags})
    record(wiring, "page", page_made_from(folder, about(grid)))


def record(wiring: Wiring, product: str, made_from: Mapping[str, str]) -> None:
    write_made(wiring.results, product, made_from, [wiring.results / name for name in FILES[product]])


def again(wiring: Wiring) -> tuple[dict[str, int], list[str]]:
    """Entries by stage, and products, that are to be made again."""
    found = Stale(wiring.grid, wiring.store, wiring.results)
    return Counter(entry.partition("/")[0] for entry in found.entries), list(found.products)


def entry_of(wiring: Wiring, stage: str) -> str:
    return next(entry for entry in wiring.grid.entries if entry.startswith(f"{stage}/"))


def edited(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have the code of these stages and figures mean something else."""

    def other(name: str) -> str:
        return "edited" if name in names else fingerprint(name)

    monkeypatch.setattr(stale, "fingerprint", other)
    monkeypatch.setattr(stale, "changed_modules", lambda before, now: {"attacks"})


def test_what_is_made_stays(wiring: Wiring) -> None:
    assert again(wiring) == ({}, [])


def test_edited_code_reruns_cheap_stages_and_what_hangs_on_them(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(monkeypatch, "features", "pretraining", "datasets")
    assert again(wiring) == ({"features": 1, "probing": 1}, PRODUCTS)
    lines = Stale(wiring.grid, wiring.store, wiring.results).notices()
    assert "features: 1 of 1 made again (changed since: attacks)" in lines
    assert any(line.startswith("pretraining: kept 1 of 1 entries made by other code (changed") for line in lines)


def test_edited_figures_are_drawn_again_alone(wiring: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    edited(monkeypatch, "figures/headline")
    assert again(wiring) == ({}, ["figure_headline", "page"])


def test_an_input_that_is_something_else_reruns_expensive_stages_too(wiring: Wiring) -> None:
    make(wiring, entry_of(wiring, "pretraining"), "other weights")
    assert again(wiring) == ({"evaluation": 1, "features": 1, "probing": 1, "finetuning": 1}, PRODUCTS)


def test_an_input_made_again_to_the_same_bytes_changes_nothing(wiring: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = entry_of(wiring, "pretraining")
    renew(wiring.store / backbone)
    assert again(wiring)[0]["pretraining"] == 1
    make(wiring, backbone)
    assert again(wiring) == ({}, [])


@pytest.mark.parametrize("name", ["metrics.json", "timing.json", CARD])
def test_an_entry_whose_outputs_are_gone_is_published_again(wiring: Wiring, name: str) -> None:
    evaluation = entry_of(wiring, "evaluation")
    (wiring.store / evaluation / name).unlink()
    found = Stale(wiring.grid, wiring.store, wiring.results)
    assert {entry: reason.kind for entry, reason in found.entries.items()} == {evaluation: "outputs"}
    assert found.files()[0] == str(wiring.store / evaluation / CARD)
    assert open_entry(wiring.store / evaluation).publish_finished()
    assert again(wiring) == ({}, [])


def test_an_entry_that_is_gone_is_made_again(wiring: Wiring) -> None:
    renew(wiring.store / entry_of(wiring, "features"))
    assert again(wiring) == ({"features": 1, "probing": 1}, PRODUCTS)


def test_a_missing_table_or_picture_is_made_again(wiring: Wiring) -> None:
    (wiring.results / "figures" / "headline.tex").unlink()
    assert again(wiring) == ({}, ["figure_headline", "page"])
    (wiring.results / "results.parquet").unlink()
    assert again(wiring) == ({}, PRODUCTS)


def test_figures_that_are_no_longer_drawn_leave_the_tables_alone(wiring: Wiring, tmp_path: Path) -> None:
    settings = wiring.grid.experiment.model_dump(mode="json", exclude_unset=True)
    settings["figures"] = {"draw": ["width"]}
    other = Wiring(plan(validate(settings)))
    assert again(other) == ({}, ["figure_width", "page"])
    settings["title"] = "Another"
    assert again(Wiring(plan(validate(settings)))) == ({}, ["results", "figure_width", "claims", "report", "page"])


def test_a_card_of_before_that_does_not_say_what_it_was_made_from_is_believed(wiring: Wiring) -> None:
    for entry in wiring.grid.entries:
        for folder in (wiring.store / entry, wiring.store / entry / FINISHED):
            card = json.loads((folder / CARD).read_text())
            card.pop("inputs", None)
            (folder / CARD).write_text(json.dumps(card))
    assert again(wiring)[0] == {}


def test_long_lists_of_names_are_cut() -> None:
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c, d, e"
    assert listed(["a", "b", "c", "d", "e", "f", "g"]) == "a, b, c, d, e and 2 more"


def test_a_new_store_away_from_the_checkout_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wiring = Wiring(small(Path()))
    (line,) = wiring.place_notices()
    assert line.startswith(f"store: {tmp_path / 'store'} is new; ")
    assert f"--directory {ROOT} " in line
    wiring.write_entries()
    assert wiring.place_notices() == []
    monkeypatch.chdir(ROOT)
    assert Wiring(small(Path("nowhere"))).place_notices() == []


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(ConfigurationError, match=r"store = .*/store, results = .*: cannot be written"):
        Wiring(small(tmp_path)).prepare()


def test_a_description_that_was_edited_is_named(wiring: Wiring) -> None:
    path = wiring.store / entry_of(wiring, "finetuning") / "entry.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    with pytest.raises(ConfigurationError, match=r"entry\.json: made with seed = 7, .* or the file was edited"):
        wiring.write_entries()
