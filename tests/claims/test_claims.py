"""Files of claims: every mistake gets one message, and a claim of one's own takes ten lines."""

from pathlib import Path

import pytest
from robust_transfer import cli
from robust_transfer.claims.ledger import ledger
from robust_transfer.claims.lookup import Measured
from robust_transfer.configuration import claims
from robust_transfer.configuration.claims import Claim, read_claims
from robust_transfer.configuration.load import ConfigurationError
from robust_transfer.store.made import digest_of_claims
from robust_transfer.tables.results import read_results
from support.documents import blocks
from support.fake_entries import Fake
from support.paths import ROOT

OWN = """
claims:
  own:
    statement: Robust networks transfer better to coarse shapes.
    where: {mode: fixed-feature, targets: [coarse]}
    rule: {kind: difference, better: robust, than: standard}
"""


def wrong(tmp_path: Path, text: str) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        read_claims([path])
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix(f"{path}: ")


def test_the_papers_claims_are_read_and_the_same_names_twice_are_not(tmp_path: Path) -> None:
    paper, follow_up = read_claims()
    assert (paper.file, follow_up.file) == ("paper", "follow-up")
    assert len(paper.claims) > 20
    assert all(isinstance(claim, Claim) and claim.paper for claim in paper.claims.values())
    path = tmp_path / "again.yaml"
    path.write_text(OWN)
    other = tmp_path / "other.yaml"
    other.write_text(OWN)
    with pytest.raises(ConfigurationError, match=r"other.yaml: claims.own: .*again.yaml has a claim of that name"):
        read_claims([path, other])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "fixed-feature",
            "fixed",
            "claims.own.where.mode = fixed: write fixed-feature, full-network, source, cue-conflict or gallery",
        ),
        (
            "mode: fixed-feature",
            "mode: gallery, metric: inversion_sim",
            "claims.own.where: mode = gallery and metric = inversion_sim: write metric: gradient_low_frequency, ",
        ),
        (
            "mode: fixed-feature",
            "mode: fixed-feature, setting: adversarial-full",
            "claims.own.where: setting = adversarial-full: it is of mode full-network, not of fixed-feature",
        ),
        ("better: robust", "better: sturdy", "claims.own.rule.better = sturdy: write robust, standard, or {eps: 3}"),
        ("than: standard", "than: robust", "claims.own.rule: better and than name the same networks"),
        ("kind: difference", "kind: diference", "claims.own.rule: no such kind of rule: diference; write difference"),
        ("{kind: difference, ", "{", "claims.own.rule: says no kind; write kind: difference, best_eps, optimum"),
        ("targets:", "target:", "claims.own.where.target = ['coarse']: unknown key; did you mean targets?"),
        ("claims:", "claim:", "claims: required and not there; did you mean it where claim stands?"),
        ("difference, better: robust, than: standard", "optimum, moves: up", "claims.own: where.architectures = best"),
        (
            "difference, better: robust, than: standard",
            "best_eps, at_least: 1, at_most: 0.5",
            "claims.own.rule: at_most = 0.5: write at least 1",
        ),
        ("targets: [coarse]", "architectures: bets", "claims.own.where.architectures = bets: write best, all, widths"),
        ("    rule", "    holds_on: more\n    rule", "claims.own.holds_on = more: write each, most, some, or a number"),
        (
            "    rule",
            "    holds_on: 0\n    rule",
            "claims.own.holds_on = 0: write each, most, some, or a number from 1 up",
        ),
        ("than: standard", "than: {eps: 1/2}", "claims.own.rule.than.eps = 1/2: an eps is 0"),
        (
            "difference, better: robust, than: standard",
            "best_eps, at_least: -1",
            "claims.own.rule.at_least = -1: an eps is 0",
        ),
    ],
)
def test_a_mistake_gets_one_message(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in OWN
    assert wrong(tmp_path, OWN.replace(old, new)).startswith(message)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    with pytest.raises(ConfigurationError, match=r"owns.yaml: no such file \(did you mean own.yaml\?\)"):
        read_claims([tmp_path / "owns.yaml"])


def test_a_claim_of_ones_own_takes_ten_lines_as_documented(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The example of docs/claims.md, tested on an experiment with its targets."""
    (block,) = blocks(ROOT / "docs/claims.md", "yaml", "claim")
    assert len(block.text.splitlines()) <= 10
    path = tmp_path / "mine.yaml"
    path.write_text(block.text)
    fake = Fake(tmp_path, images=400)
    for target in fake.targets:
        fake.transfer(40, 40, target=target)
        fake.transfer(80, 80, target=target, eps="0.25")
    table = fake.collect()
    (family,) = read_claims([path])
    (verdict,) = ledger(Measured(read_results(table)), [family])
    assert verdict.outcome == "holds"
    assert cli.main(["claims", str(table), "--claims", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("holds ")


def test_an_edited_file_of_claims_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "FOLDER", tmp_path)
    (tmp_path / "own.yaml").write_text(OWN)
    before = digest_of_claims()
    (tmp_path / "own.yaml").write_text(OWN.replace("better to", "as well to"))
    assert digest_of_claims() != before
