"""Importing: published weights become backbones that evaluation and transfer read like trained ones."""

import hashlib
import importlib.util
import json
import os
import shutil
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from robust_transfer.configuration.catalogue.imagenet import imagenet_classes
from robust_transfer.configuration.running import VARIABLE, Running
from robust_transfer.configuration.weights import ImportingSettings
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.build import build
from robust_transfer.stages import evaluation, importing
from robust_transfer.store.entry import CARD, StoreError, open_entry, sha256
from robust_transfer.tables.published import published_accuracy
from robust_transfer.weights import files as weights
from robust_transfer.weights.checkpoints import load_published
from robust_transfer.weights.files import WeightsError, is_present, located, missing_weights, published_file
from robust_transfer.weights.pickles import CheckpointError
from support.prepared_datasets import encoded_squares, new_entry, prepared, write_parquet

RELEASED = {"architecture": "shufflenet_v2_x1_0", "norm": "l2", "eps": "3", "weights": {"kind": "released"}}


def settings(**of) -> ImportingSettings:
    return ImportingSettings.model_validate({"input_size": 32, "norm": None, "eps": "0", **of})


def released(folder: Path, **extra) -> Path:
    """A checkpoint as the authors' training wrote it: legacy stream, network wrapped twice, attacker repeated."""
    torch.manual_seed(0)
    models = pytest.importorskip("torchvision.models")
    network = models.shufflenet_v2_x1_0(weights=None).eval()
    state = OrderedDict()
    for name, value in network.state_dict().items():
        state[f"module.model.model.{name}"] = state[f"module.attacker.model.model.{name}"] = value
    for prefix in ("module.normalizer.", "module.attacker.normalize."):
        state[f"{prefix}new_mean"] = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        state[f"{prefix}new_std"] = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    content = {"model": state, "epoch": 89, "nat_prec1": torch.tensor(43.5), "amp": None, **extra}
    path = folder / "shufflenet_l2_eps3.ckpt"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of weights that running.weights names."""
    path: Path = tmp_path / "weights"
    path.mkdir()
    monkeypatch.setenv(VARIABLE, Running(weights=str(path)).model_dump_json())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return path


def imported(root: Path, **of):
    entry = new_entry(root, "importing", settings(**of).model_dump(mode="json"))
    importing.run(entry, threads=2, device="cpu")
    return open_entry(entry.path)


def images(side: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def test_a_released_network_gives_the_logits_it_gave(folder, tmp_path):
    path = released(folder)
    entry = imported(tmp_path, **RELEASED)
    network = load_backbone(entry)
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    original = models.shufflenet_v2_x1_0(weights=None).eval()
    with torch.no_grad():
        assert torch.equal(network(images()), original(network.normalise(images())))
    facts = entry.facts()
    assert facts["classes"] == list(imagenet_classes())
    assert (facts["norm"], facts["eps"], facts["precision"]) == ("l2", "3", "fp32")
    assert facts["published_top1"] == published_accuracy("shufflenet_v2_x1_0", "l2", "3")
    told = facts["imported"]
    assert told["kind"] == "released"
    assert told["sha256"] == sha256(path)
    assert told["from"].startswith("https://huggingface.co/madrylab/robust-imagenet-models/")
    assert told["nat_prec1"] == pytest.approx(43.5)
    assert facts["licence"] == "MIT"


def test_the_same_file_gives_the_same_bits(folder, tmp_path):
    released(folder)
    one, two = (imported(tmp_path / name, **RELEASED) for name in ("one", "two"))
    assert sha256(one.path / "weights.safetensors") == sha256(two.path / "weights.safetensors")


def test_an_absent_file_is_named_with_where_to_fetch_it(folder, tmp_path):
    with pytest.raises(WeightsError) as error:
        imported(tmp_path, **RELEASED)
    for words in (str(folder / "shufflenet_l2_eps3.ckpt"), "huggingface.co/madrylab", "downloads: true"):
        assert words in str(error.value)
    assert not is_present(settings(**RELEASED), folder)
    assert str(error.value) == missing_weights(settings(**RELEASED), folder)


def test_a_page_instead_of_weights_is_refused_and_leaves_nothing(folder, tmp_path):
    (folder / "shufflenet_l2_eps3.ckpt").write_text("<!DOCTYPE html><html>Sign in</html>")
    with pytest.raises(CheckpointError, match="HTML"):
        imported(tmp_path, **RELEASED)
    (entry,) = (tmp_path / "store" / "importing").iterdir()
    assert not (entry / CARD).exists()
    assert not (entry / "weights.safetensors").exists()


class Touch:
    """Unpickled by others, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_nothing_in_a_checkpoint_is_executed(folder, tmp_path):
    canary = tmp_path / "canary"
    path = released(folder, schedule=Touch(canary))
    torch.load(path, weights_only=False)
    assert canary.exists()  # it sings where it can
    canary.unlink()
    entry = imported(tmp_path, **RELEASED)
    assert not canary.exists()
    assert any("system" in name for name in entry.facts()["imported"]["globals_met"])
    assert any("system" in line for line in (json.dumps(entry.card()),))


class TestFiles:
    def test_any_state_dict_by_its_path(self, folder, tmp_path):
        network = build("resnet8_w4", 7, seed=5).eval()
        (folder / "mine").mkdir()
        torch.save(network.state_dict(), folder / "mine" / "resnet8_w4_linf_4_2.pt")
        kind = {"kind": "files", "path": "mine/{architecture}_{norm}_{eps}_{seed}.pt"}
        entry = imported(tmp_path, architecture="resnet8_w4", norm="linf", eps="4/255", seed=2, weights=kind)
        assert entry.facts()["classes"] == [str(i) for i in range(7)]
        assert entry.facts().get("published_top1") is None
        with torch.no_grad():
            assert torch.equal(load_backbone(entry)(images(32)), network(images(32)))

    def test_which_weights_of_a_file_were_taken_stands_in_the_log_and_the_card(self, folder, tmp_path, caplog):
        raw, averaged = (build("resnet8_w4", 7, seed=seed).eval() for seed in (5, 6))
        content = {"net": {f"module.{name}": one for name, one in raw.state_dict().items()}}
        content["net_ema"] = {f"_orig_mod.{name}": one for name, one in averaged.state_dict().items()}
        torch.save(content, folder / "mine.pt")
        kind = {"kind": "files", "path": "mine.pt"}
        with pytest.raises(CheckpointError, match=r"raw weights .* and averaged ones .*key: net_ema"):
            imported(tmp_path / "unsaid", architecture="resnet8_w4", weights=kind)
        with caplog.at_level("INFO", "robust_transfer"):
            entry = imported(tmp_path, architecture="resnet8_w4", weights=kind | {"key": "net_ema"})
        with torch.no_grad():
            assert torch.equal(load_backbone(entry)(images(32)), averaged(images(32)))
        assert "the weights at net_ema, a moving average, names without _orig_mod.; not net" in caplog.text
        facts = entry.facts()["imported"]
        assert (facts["key"], facts["averaged"], facts["others"]) == ("net_ema", True, ["net"])
        assert facts["wrapper"] == "_orig_mod."

    def test_a_folder_in_place_of_the_file_is_named_as_one(self, folder, tmp_path):
        (folder / "mine.pt").mkdir()
        of = {"architecture": "resnet8_w4", "weights": {"kind": "files", "path": "mine.pt"}}
        assert not is_present(settings(**of), folder)
        with pytest.raises(WeightsError, match=r"mine.pt: a folder, where a file is needed"):
            imported(tmp_path, **of)

    def test_one_of_our_own_weights(self, folder, tmp_path):
        released(folder)
        first = imported(tmp_path, **RELEASED)
        shutil.copy(first.path / "weights.safetensors", folder / "again.safetensors")
        kind = {"kind": "files", "path": "again.safetensors"}
        entry = imported(tmp_path / "second", architecture="shufflenet_v2_x1_0", weights=kind)
        with torch.no_grad():
            assert torch.equal(load_backbone(entry)(images()), load_backbone(first)(images()))


class TestDownloads:
    def test_from_the_hugging_face_hub_by_its_own_library(self, folder, tmp_path, monkeypatch):
        pytest.importorskip("huggingface_hub", reason="not installed: make setup EXTRAS=huggingface")
        there = released(tmp_path / "hub")
        asked = []

        def download(repository, file, local_dir):
            asked.append((repository, file))
            return shutil.copy(there, Path(local_dir) / file)

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        path, _ = located(settings(**RELEASED), folder, downloads=True)
        assert path == folder / "shufflenet_l2_eps3.ckpt"
        assert asked == [("madrylab/robust-imagenet-models", "shufflenet_l2_eps3.ckpt")]
        assert located(settings(**RELEASED), folder, downloads=True)[0] == path
        assert len(asked) == 1  # it is there now

    def test_a_hub_that_cannot_be_reached_is_said(self, folder, monkeypatch):
        hub = pytest.importorskip("huggingface_hub", reason="not installed: make setup EXTRAS=huggingface")

        def download(*_, **__):
            raise hub.errors.LocalEntryNotFoundError("offline")

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        with pytest.raises(
            WeightsError, match=r"could not be downloaded \(.*offline.*\); put it at .*eps3.ckpt by other"
        ):
            located(settings(**RELEASED), folder, downloads=True)

    def test_without_the_library_the_message_says_how_to_get_it(self, folder, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(WeightsError, match="make setup EXTRAS=huggingface"):
            located(settings(**RELEASED), folder, downloads=True)

    def test_a_file_is_held_to_the_checksum_in_its_name(self, folder, tmp_path, monkeypatch):
        offered = tmp_path / "offered"
        offered.mkdir()
        content = b"weights of a resnet50"
        name = f"resnet50-{hashlib.sha256(content).hexdigest()[:8]}.pth.tar"
        (offered / name).write_bytes(content)
        catalogue = SimpleNamespace(
            stylized_imagenet=SimpleNamespace(address=offered.as_uri(), files={"resnet50": {"sin": name}})
        )
        monkeypatch.setattr("robust_transfer.configuration.weights.weights_catalogue", lambda: catalogue)
        wanted = settings(architecture="resnet50", weights={"kind": "stylized-imagenet"})
        path, _ = located(wanted, folder, downloads=True)
        assert path.read_bytes() == content
        path.unlink()
        for stamp in folder.iterdir():
            stamp.unlink()
        (offered / name).write_bytes(b"something else at all")
        with pytest.raises(DatasetError, match=name):
            located(wanted, folder, downloads=True)
        assert not path.exists()


class TestTorchvision:
    @pytest.fixture(autouse=True)
    def torchvision(self):
        pytest.importorskip("torchvision")

    def test_the_file_is_called_as_torchvision_calls_it(self):
        file = published_file(
            settings(architecture="resnet50", weights={"kind": "torchvision", "weights": "IMAGENET1K_V2"})
        )
        assert file.path == "resnet50-11ad3fa6.pth"
        assert file.sha256 == "11ad3fa6"
        assert (file.url or "").startswith("https://download.pytorch.org/")

    def test_other_weights_are_refused_with_those_there_are(self):
        with pytest.raises(WeightsError, match=r"weights V3: torchvision's resnet18 has IMAGENET1K_V1"):
            published_file(settings(architecture="resnet18", weights={"kind": "torchvision", "weights": "V3"}))

    MOBILENET = settings(architecture="mobilenet_v2", weights={"kind": "torchvision"})

    def test_what_torch_hub_has_is_found(self, folder, tmp_path, monkeypatch):
        cache = tmp_path / "torch" / "hub" / "checkpoints"
        cache.mkdir(parents=True)
        monkeypatch.setattr(weights, "sha256", lambda path: "b0353104" + 56 * "0")
        (cache / "mobilenet_v2-b0353104.pth").write_bytes(b"x")
        path, _ = located(self.MOBILENET, folder, downloads=False)
        assert path == cache / "mobilenet_v2-b0353104.pth"

    def test_a_file_that_is_not_what_its_name_says_is_refused(self, folder):
        (folder / "mobilenet_v2-b0353104.pth").write_bytes(b"half a file")
        with pytest.raises(
            WeightsError, match=r"begins with \w{8} and not with b0353104, which its name contains; it was cut"
        ):
            located(self.MOBILENET, folder, downloads=True)


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed: make setup EXTRAS=timm")
def test_timms_weights_bring_their_normalisation(folder, tmp_path):
    timm = importlib.import_module("timm")
    safetensors = importlib.import_module("safetensors.torch")
    network = timm.create_model("test_resnet.r160_in1k", pretrained=False).eval()
    of = {"architecture": "timm_test_resnet.r160_in1k", "weights": {"kind": "timm"}}
    file = published_file(settings(**of))
    assert file.repository == "timm/test_resnet.r160_in1k"
    path = folder / file.path
    path.parent.mkdir(parents=True)
    safetensors.save_file(network.state_dict(), path)
    entry = imported(tmp_path, **of)
    ours = load_backbone(entry)
    config = network.pretrained_cfg
    assert ours.normalise.mean.flatten().tolist() == pytest.approx(config["mean"])
    assert ours.normalise.std.flatten().tolist() == pytest.approx(config["std"])
    with torch.no_grad():
        assert torch.allclose(ours(images()), network(ours.normalise(images())), atol=1e-6)


class TestEvaluation:
    """An imported network on the source's test images, beside its published accuracy."""

    CLASSES = 4

    @pytest.fixture
    def backbone(self, folder, tmp_path):
        torch.save(build("resnet8_w4", self.CLASSES, seed=5).state_dict(), folder / "net.pt")
        return imported(tmp_path, architecture="resnet8_w4", weights={"kind": "files", "path": "net.pt"})

    def source(self, root: Path, names: list[str]):
        found, labels = encoded_squares(80)
        for split in ("train", "test"):
            write_parquet(root / f"images/{split}.parquet", found, [i % self.CLASSES for i in range(len(labels))])
        (root / "images" / "info.json").write_text(json.dumps({"classes": names}))
        return prepared(root, {"kind": "parquet", "path": str(root / "images")})

    def evaluated(self, root: Path, backbone, source):
        of = {"norm": "l2", "eps": [], "attack": {"steps": 1}}
        entry = new_entry(root, "evaluation", of, backbone=backbone, source=source)
        evaluation.run(entry, threads=2, device="cpu")
        return open_entry(entry.path)

    def test_classes_of_other_names_are_taken_in_their_order(self, backbone, tmp_path):
        entry = self.evaluated(tmp_path, backbone, self.source(tmp_path, ["a", "b", "c", "d"]))
        rows = json.loads((entry.path / "metrics.json").read_text())
        assert {row["metric"] for row in rows} == {"top1", "mean_per_class"}
        assert all(row["attack"] is None for row in rows)  # no eps was asked for

    def test_a_source_with_some_of_the_classes_counts_by_their_names(self, folder, tmp_path):
        network = build("resnet8_w4", self.CLASSES)
        network.head.weight.data.zero_()
        network.head.bias.data = torch.tensor([0.0, 0.0, 0.0, 1.0])  # it takes everything for class 3
        torch.save(network.state_dict(), folder / "three.pt")
        backbone = imported(tmp_path, architecture="resnet8_w4", weights={"kind": "files", "path": "three.pt"})
        found, _ = encoded_squares(80)
        for split in ("train", "test"):
            write_parquet(tmp_path / f"part/{split}.parquet", found, [int(i < 20) for i in range(80)])
        (tmp_path / "part" / "info.json").write_text(json.dumps({"classes": ["1", "3"]}))
        entry = self.evaluated(
            tmp_path, backbone, prepared(tmp_path, {"kind": "parquet", "path": str(tmp_path / "part")})
        )
        rows = {row["metric"]: row for row in json.loads((entry.path / "metrics.json").read_text())}
        assert rows["top1"]["value"] == 25
        assert rows["mean_per_class"]["value"] == 50

    def test_the_same_names_in_another_order_are_refused(self, backbone, tmp_path):
        with pytest.raises(StoreError, match=r"its 4 outputs are not the 4 classes of .*, or not in their order;"):
            self.evaluated(tmp_path, backbone, self.source(tmp_path, ["1", "0", "2", "3"]))


def test_a_file_that_is_no_networks_names_what_differs(folder):
    path = released(folder)
    with pytest.raises(CheckpointError) as error:
        load_published(path, "resnet18", 1000, input_size=224)
    assert "resnet18" in str(error.value)
