"""Networks of RobustBench and ARES by their names: the lists, what is refused, and imports in the published layout."""

import csv
from dataclasses import replace

import pytest
import torch
from robust_transfer.architectures import CATALOGUE, TIMM, check_architecture, timm_catalogue, wide_resnet
from robust_transfer.configuration.catalogue import models as catalogue
from robust_transfer.configuration.catalogue.models import (
    ARES,
    ROBUSTBENCH,
    Preprocessing,
    PublishedModel,
    ares_models,
    robustbench_models,
)
from robust_transfer.configuration.catalogue.weights import weights_catalogue
from robust_transfer.configuration.load import ConfigurationError, load
from robust_transfer.configuration.running import VARIABLE, Running
from robust_transfer.configuration.weights import ImportingSettings
from robust_transfer.dag.checks import preprocessing_notices
from robust_transfer.dag.grid import plan
from robust_transfer.dag.sources import foreign_networks
from robust_transfer.networks.backbones import load_backbone
from robust_transfer.networks.build import build
from robust_transfer.stages import importing
from robust_transfer.store.entry import open_entry
from robust_transfer.weights.files import _direct, missing_weights, published_file
from support.checkpoint_files import with_statistics
from support.prepared_datasets import new_entry

ALL = [*robustbench_models().values(), *ares_models().values()]
ROBUST_SWIN = {"kind": "robustbench", "model": "Liu2023Comprehensive_Swin-B"}
HYDRA = {"kind": "robustbench", "model": "Sehwag2020Hydra", "dataset": "cifar10"}


class TestLists:
    def test_every_network_can_be_built_or_says_what_it_is(self):
        timm = {*timm_catalogue()}
        for model in ALL:
            if model.architecture is None:
                assert model.lacking
                assert not model.url
                continue
            assert not model.lacking
            assert model.architecture in CATALOGUE or wide_resnet(model.architecture) or (
                model.architecture.startswith(TIMM) and (not timm or model.architecture.removeprefix(TIMM) in timm)
            )  # fmt: skip
            if timm or not model.architecture.startswith(TIMM):
                check_architecture(model.architecture)
            assert model.url.startswith("https://")
            assert model.preprocessing
            assert len(model.preprocessing.mean) == len(model.preprocessing.std) == 3
            assert (model.norm is None) == (model.eps == "0")

    def test_numbers_of_networks(self):
        assert (len(robustbench_models()), len(ares_models())) == (206, 55)
        assert len({model.file for model in ALL if model.architecture}) == 134 + 16

    @pytest.mark.parametrize(("path", "name"), [(ROBUSTBENCH, "robustbench"), (ARES, "ares")])
    def test_every_column_has_its_source(self, path, name):
        with path.open(newline="") as file:
            columns = {*next(csv.reader(file))} - {"dataset", "threat_model", "model", "lacking", "file"}
        facts = getattr(weights_catalogue(), name).facts
        assert {column.strip() for columns in facts for column in columns.split(",")} == columns

    def test_what_the_two_projects_say_of_some(self):
        swin = robustbench_models()["imagenet", "Linf", "Liu2023Comprehensive_Swin-B"]
        assert (swin.architecture, swin.norm, swin.eps) == ("timm_swin_base_patch4_window7_224", "linf", "4/255")
        assert swin.file == "robustbench/imagenet/Linf/Liu2023Comprehensive_Swin-B.pt"
        assert swin.preprocessing == Preprocessing(
            (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224, 256, "bicubic"
        )  # fmt: skip
        xcit = robustbench_models()["imagenet", "Linf", "Debenedetti2022Light_XCiT-S12"]
        assert xcit.preprocessing == Preprocessing((0, 0, 0), (1, 1, 1), 224, 224, "bicubic")
        assert xcit.file.endswith("/debenedetti2022light-xcit-s-imagenet-linf.pth.tar")
        better = robustbench_models()["cifar100", "Linf", "Wang2023Better_WRN-70-16"]
        assert (better.architecture, better.top1, better.classes) == ("wrn70_16_swish", 75.22, 100)
        assert robustbench_models()["cifar10", "L2", "Standard"].eps == "0"
        assert ares_models()["vitb_normal"].preprocessing == Preprocessing(
            (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 224, None, None
        )
        assert "GELU" in ares_models()["wresnet50_at"].lacking

    def test_what_is_asked_for_on_google_drive_is_the_file(self):
        assert _direct("https://drive.google.com/uc?id=A-b").endswith("/download?id=A-b&export=download&confirm=t")
        assert _direct("https://github.com/x.pt") == "https://github.com/x.pt"


def experiment(weights, architecture, eps, norm="linf", **changes):
    part = {"architectures": [architecture], "norm": norm, "eps": eps}
    base = {"weights": {"theirs": weights}, "backbones": "theirs", "grid": [part]}
    return load([], base | {"figures": {"widths": [], "fixed_eps": None, "draw": ["headline"]}} | changes)


class TestConfiguration:
    @pytest.mark.parametrize(
        ("weights", "architecture", "eps", "says"),
        [
            (ROBUST_SWIN, "resnet50", ["4/255"], r"is no resnet50; write architectures: \[timm_swin_base_patch4_"),
            (HYDRA, "wrn28_10", [0], r"published for linf eps 8/255, and not for linf eps 0; .*eps: \[8/255\]"),
            (HYDRA | {"model": "Sehwag2020Hidra"}, "wrn28_10", ["8/255"], r"no network Sehwag2020Hidra; did you me"),
            (HYDRA | {"model": "Pang2020Boosting"}, "wrn34_20", ["8/255"], r"Pang2020Boosting cannot be imported: "),
            (HYDRA | {"dataset": "cifar100"}, "wrn28_10", ["8/255"], r"RobustBench has, of cifar100 and Linf, no"),
            ({"kind": "ares", "model": "wresnet50_at"}, "wide_resnet50_2", ["4/255"], r"it is wide_resnet50_2 with"),
            ({"kind": "ares", "model": "swinb"}, "resnet50", ["4/255"], r"ARES has no network swinb; did you mean s"),
        ],
    )  # fmt: skip
    def test_what_is_published_otherwise_is_refused_with_what_to_write(self, weights, architecture, eps, says):
        if weights is ROBUST_SWIN:
            pytest.importorskip("timm", reason="not installed: make setup EXTRAS=timm")
        with pytest.raises(ConfigurationError, match=says):
            experiment(weights, architecture, eps)

    def test_another_norm_is_refused(self):
        with pytest.raises(ConfigurationError, match=r"write norm: linf, eps: \[8/255\]"):
            experiment(HYDRA, "wrn28_10", [0.5], norm="l2")

    def test_a_missing_file_is_named_with_where_it_is_offered(self, tmp_path):
        settings = ImportingSettings(architecture="wrn28_10", input_size=32, norm="linf", eps="8/255", weights=HYDRA)
        says = missing_weights(settings, tmp_path)
        assert f"{tmp_path}/robustbench/cifar10/Linf/Sehwag2020Hydra.pt: no such file" in says
        assert "drive.google.com/uc?id=" in says

    def test_a_network_of_other_classes_than_the_source_is_refused_before_any_job(self, tmp_path):
        (message,) = foreign_networks(plan(experiment(HYDRA, "wrn28_10", ["8/255"], store=str(tmp_path))))
        assert message.startswith("Sehwag2020Hydra: its 10 outputs are not the 12 classes of source")

    def test_what_of_the_preprocessing_is_done_otherwise_is_said(self):
        weights = {"kind": "robustbench", "model": "Salman2020Do_R18"}
        (said,) = preprocessing_notices(experiment(weights, "resnet18", ["4/255"]))
        assert said.startswith("weights.theirs: Salman2020Do_R18 was published for images of 224 px, and not of ")
        as_published = {"input_size": 224, "preprocessing": {"resize_ratio": 256 / 224}}
        assert preprocessing_notices(experiment(weights, "resnet18", ["4/255"], **as_published)) == []


@pytest.fixture
def weights(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    monkeypatch.setenv(VARIABLE, Running(weights=str(path)).model_dump_json())
    return path


def tiny(architecture, dataset, **changes):
    """A network in the place of one of a hundred million parameters."""
    preprocessing = Preprocessing((0.4, 0.5, 0.6), (0.1, 0.2, 0.3), 48, 48, "bicubic")
    published = PublishedModel(
        name="Tiny2026",
        dataset=dataset,
        architecture=architecture,
        lacking="",
        norm="linf",
        eps="8/255",
        preprocessing=preprocessing,
        file="theirs/Tiny2026.pt",
        url="https://example.org/Tiny2026.pt",
        licence="MIT",
        top1=71.5,
    )
    return replace(published, **changes)


def imported(tmp_path, path, model, state, monkeypatch, kind="robustbench"):
    lists = {("cifar10", "Linf", model.name): model} if kind == "robustbench" else {model.name: model}
    monkeypatch.setattr(f"robust_transfer.configuration.weights.{kind}_models", lambda: lists)
    of = {"kind": kind, "model": model.name} | ({"dataset": "cifar10"} if kind == "robustbench" else {})
    settings = ImportingSettings(
        architecture=model.architecture, input_size=32, norm=model.norm, eps=model.eps, weights=of
    )
    file = path / published_file(settings).path
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    entry = new_entry(tmp_path, "importing", settings.model_dump(mode="json"))
    importing.run(entry, threads=1, device="cpu")
    return open_entry(entry.path)


def by_kuangliu_names(network):
    names = {"fc.": "linear.", "downsample": "shortcut"}
    return {
        "module."
        + name.replace("body.", "").replace("head.", "linear.").replace("downsample", names["downsample"]): one
        for name, one in network.state_dict().items()
        if not name.startswith("normalise.")
    }


class TestImports:
    def test_a_network_of_robustbench_takes_mean_and_std_of_its_entry(self, weights, tmp_path, monkeypatch, caplog):
        original = with_statistics(build("resnet18_cifar", 10))
        with caplog.at_level("INFO", "robust_transfer"):
            entry = imported(
                tmp_path, weights, tiny("resnet18_cifar", "cifar10"),
                {"state_dict": by_kuangliu_names(original), "epoch": 7}, monkeypatch,
            )  # fmt: skip
        network, facts = load_backbone(entry), entry.facts()
        assert network.normalise.mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
        assert network.normalise.std.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
        images = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            expected = original.head(original.body((images - network.normalise.mean) / network.normalise.std))
            torch.testing.assert_close(network(images), expected)
        assert facts["classes"] == [str(i) for i in range(10)]
        assert (facts["licence"], facts["published_top1"], facts["eps"]) == ("MIT", 71.5, "8/255")
        told = facts["imported"]["preprocessing"]
        assert (told["resize_ratio"], told["interpolation"]) == (1, "bicubic")
        assert told["not_honoured"] == [
            "images of 48 px, and not of 32", "bicubic interpolation, where images are resized bilinearly here"
        ]  # fmt: skip
        assert "published for images of 48 px, and not of 32; bicubic" in caplog.text

    def test_mean_and_std_in_the_file_count_before_those_of_the_entry(self, weights, tmp_path, monkeypatch):
        state = by_kuangliu_names(with_statistics(build("resnet18_cifar", 10)))
        state |= {"module.mu": torch.full((1, 3, 1, 1), 0.3), "module.sigma": torch.full((1, 3, 1, 1), 0.7)}
        entry = imported(tmp_path, weights, tiny("resnet18_cifar", "cifar10"), state, monkeypatch)
        assert load_backbone(entry).normalise.mean.flatten().tolist() == pytest.approx([0.3] * 3)

    def test_a_network_of_ares_is_one_of_timms_at_another_size(self, weights, tmp_path, monkeypatch):
        timm = pytest.importorskip("timm", reason="not installed: make setup EXTRAS=timm")
        original = with_statistics(timm.create_model("test_vit", num_classes=1000))
        entry = imported(
            tmp_path, weights, tiny("timm_test_vit", "imagenet", top1=None), original.state_dict(), monkeypatch, "ares"
        )  # fmt: skip
        network, facts = load_backbone(entry), entry.facts()
        assert network(torch.rand(1, 3, 32, 32)).shape == (1, 1000)
        assert facts["imported"]["interpolated"] == ["pos_embed from 1×101×64 to 1×5×64"]
        assert network.normalise.mean.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
        assert "published_top1" not in facts

    def test_the_lists_are_those_that_are_read(self):
        assert catalogue.CLASSES.keys() == {model.dataset for model in ALL}
