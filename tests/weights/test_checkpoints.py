"""Checkpoints from elsewhere: what is read from genuine files, what is refused, and that nothing is executed."""

import collections
import copyreg
import pathlib
import pickle
import random
import struct
import sys
import tarfile
import time
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from robust_transfer.networks.backbones import save_weights
from robust_transfer.networks.build import IMAGENET_MEAN, IMAGENET_STD, Network, build
from robust_transfer.weights import pickle_machine
from robust_transfer.weights.checkpoints import head_path, load_published
from robust_transfer.weights.pickle_values import as_key
from robust_transfer.weights.pickles import Checkpoint, CheckpointError, Placeholder, read_checkpoint
from robust_transfer.weights.state_dicts import find_state, unwrapped
from safetensors.torch import save_file
from support.checkpoint_files import (
    Stored,
    Viewed,
    hostile_pickles,
    pickled,
    save_as_released,
    trained_by_robustness,
    with_statistics,
    write_side_effects,
    write_stream,
    write_zip,
)
from torch import nn

FORMATS = pytest.mark.parametrize("stream", [True, False], ids=["stream", "zip"])
WRITERS = pytest.mark.parametrize("write", [write_stream, write_zip], ids=["stream", "zip"])


def images(n=2, side=64):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def normalised(x):
    return (x - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


def assert_same_network(network, original, side=64):
    """Bit for bit on the same normalised images; as images come, as near as two ways to normalise are."""
    assert not network.training
    x = normalised(images(side=side))
    with torch.no_grad():
        theirs = original.eval()(x)
        assert torch.equal(network.head(network.body(x)), theirs)
        torch.testing.assert_close(network(images(side=side)), theirs, rtol=1e-4, atol=1e-5)


def torchvision_network(architecture, **arguments):
    import torchvision.models

    return with_statistics(torchvision.models.get_model(architecture, weights=None, **arguments))


@pytest.fixture(scope="module")
def shufflenet():
    return torchvision_network("shufflenet_v2_x0_5", num_classes=10)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """ResNet-18 as the library trains it, and its file."""
    model = trained_by_robustness("resnet18")
    path = tmp_path_factory.mktemp("published") / "resnet18_l2_eps3.ckpt"
    return model, save_as_released(path, model.state_dict(), adv_prec1=torch.tensor(53.1))


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A path that no reading may make a file of."""
    found = tmp_path / "canary"
    write_side_effects(tmp_path, found)
    monkeypatch.syspath_prepend(tmp_path)
    copyreg.add_extension("posix", "system", 240)
    yield found
    copyreg.remove_extension("posix", "system", 240)
    sys.modules.pop("side_effects", None)


class TestReleased:
    def test_a_file_of_the_library_gives_its_network(self, published):
        model, path = published
        imported = load_published(path, "resnet18", 1000, input_size=224)
        assert_same_network(imported.network, model.module.model)
        with torch.no_grad():  # through the library's own normalisation too
            torch.testing.assert_close(imported.network(images()), model(images())[0], rtol=1e-4, atol=1e-5)
        facts = imported.facts
        assert (facts["format"], facts["key"], facts["wrapper"]) == ("legacy", "model", "module.model.")
        assert (facts["epoch"], facts["nat_prec1"], facts["best_prec1"]) == (90, None, None)
        assert facts["adv_prec1"] == pytest.approx(53.1)
        assert facts["normalisation"]["mean"] == pytest.approx(IMAGENET_MEAN)
        assert facts["normalisation"]["std"] == pytest.approx(IMAGENET_STD)
        assert facts["bytes"] == path.stat().st_size
        assert "dill._dill._create_function" in facts["globals_met"]
        assert "dill._dill._create_type" in facts["globals_met"]

    @pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
    def test_a_file_of_its_cifar_networks_too(self, architecture, tmp_path):
        """By other names (`shortcut`, `linear`), and with a stem for 32 pixels."""
        model = trained_by_robustness(architecture, dataset="CIFAR")
        path = save_as_released(tmp_path / "cifar_l2_0_5.pt", model.state_dict())
        imported = load_published(path, f"{architecture}_cifar", 10, input_size=32)
        small = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(imported.network(small), model(small)[0], rtol=1e-4, atol=1e-5)
        assert imported.facts["normalisation"]["mean"] == pytest.approx([0.4914, 0.4822, 0.4465])
        with pytest.raises(CheckpointError, match=r"cifar_l2_0_5\.pt"):
            load_published(path, architecture, 10, input_size=32)

    def test_only_the_network_is_checked_not_what_lies_beside(self, published):
        content = read_checkpoint(published[1]).content
        assert isinstance(content["schedule"]["lr_lambdas"][0], Placeholder)
        assert isinstance(content["schedule"]["of"], Placeholder)
        assert content["amp"] is None
        assert torch.equal(content["optimizer"]["state"][0]["momentum_buffer"], torch.ones(3))

    def test_another_architecture_or_number_of_classes_is_named(self, published):
        with pytest.raises(
            CheckpointError, match=r"layer1.0.conv3.weight is missing.*and \d+ more. They would fit res.*18"
        ):
            load_published(published[1], "resnet50", 1000, input_size=224)
        with pytest.raises(CheckpointError, match=r"head.*\[57.*The network in the file has 1000 classes, not 57"):
            load_published(published[1], "resnet18", 57, input_size=224)

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @FORMATS
    def test_every_format_protocol_key_and_wrapping_is_read(self, stream, protocol, shufflenet, tmp_path):
        model = trained_by_robustness(shufflenet)
        key = "model" if stream else "state_dict"
        more = {"nat_prec1": np.float64(61.25)} if protocol % 2 else {"nat_prec1": torch.tensor([61.25])}
        path = save_as_released(
            tmp_path / "x.pt", model.state_dict(), key=key, stream=stream, protocol=protocol, **more
        )
        imported = load_published(path, "shufflenet_v2_x0_5", None, input_size=224)
        assert_same_network(imported.network, model.module.model.model)
        assert imported.facts["wrapper"] == "module.model.model."
        assert imported.facts["format"] == ("legacy" if stream else "zip")
        assert imported.facts["key"] == key
        assert imported.facts["nat_prec1"] == 61.25

    def test_a_network_that_was_not_parallel_is_read(self, shufflenet, tmp_path):
        model = trained_by_robustness(shufflenet, parallel=False)
        path = save_as_released(tmp_path / "x.pt", model.state_dict())
        assert load_published(path, "shufflenet_v2_x0_5", 10, input_size=224).facts["wrapper"] == "model.model."

    def test_the_normalisation_in_the_file_becomes_the_networks(self, shufflenet, tmp_path):
        state = {f"module.model.{name}": tensor for name, tensor in shufflenet.state_dict().items()}
        mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
        state |= {"module.normalizer.new_mean": mean, "module.normalizer.new_std": std}
        torch.save({"model": state}, tmp_path / "x.pt")
        network = load_published(tmp_path / "x.pt", "shufflenet_v2_x0_5", 10, input_size=224).network
        with torch.no_grad():
            theirs = shufflenet((images() - mean) / std)
            torch.testing.assert_close(network(images()), theirs, rtol=1e-4, atol=1e-5)
        torch.save({"model": state | {"module.normalizer.new_std": -std}}, tmp_path / "x.pt")
        with pytest.raises(
            CheckpointError, match=r"a std of shape \[3, 1, 1\] that is not three finite positive numbers"
        ):
            load_published(tmp_path / "x.pt", "shufflenet_v2_x0_5", 10, input_size=224)


class TestOtherWeights:
    @pytest.mark.parametrize("architecture", ["resnet18", "mnasnet0_5", "mobilenet_v2", "densenet121", "googlenet"])
    def test_torchvisions_state_dicts_are_read(self, architecture, tmp_path):
        arguments = {"init_weights": False} if architecture == "googlenet" else {}
        original = torchvision_network(architecture, num_classes=7, **arguments)
        torch.save(original.state_dict(), tmp_path / "x.pth")
        imported = load_published(tmp_path / "x.pth", architecture, 7, input_size=64)
        assert imported.facts["key"] == "file"
        assert imported.facts["normalisation"] is None
        assert_same_network(imported.network, original)

    @pytest.mark.parametrize(
        ("architecture", "path"),
        [("resnet8_w4", "head"), ("mobilenet_v3_small", "classifier.3"), ("regnet_x_400mf", "fc"), ("swin_t", "head")],
    )
    def test_the_head_is_where_torchvision_has_it(self, architecture, path):
        assert head_path(build(architecture, 3)) == path

    def test_checkpoints_for_stylized_imagenet_are_read(self, tmp_path):
        original = torchvision_network("resnet18", num_classes=5)
        content = {"epoch": 60, "arch": "resnet18", "best_prec1": torch.tensor(60.2), "optimizer": {}}
        content["state_dict"] = nn.DataParallel(original).state_dict()
        torch.save(content, tmp_path / "x.pth.tar", _use_new_zipfile_serialization=False)
        imported = load_published(tmp_path / "x.pth.tar", "resnet18", 5, input_size=224)
        assert_same_network(imported.network, original)
        assert imported.facts["wrapper"] == "module."
        assert imported.facts["best_prec1"] == pytest.approx(60.2)

    def test_old_densenets_and_files_without_counters_are_read(self, tmp_path):
        original = torchvision_network("densenet121", num_classes=5)
        state = {}
        for name, tensor in original.state_dict().items():
            for layer in ("norm1", "norm2", "conv1", "conv2"):
                if "denselayer" in name:
                    name = name.replace(f".{layer}.", f".{layer[:-1]}.{layer[-1]}.")
            if not name.endswith("num_batches_tracked"):
                state[name] = tensor
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
        torch.save(state, tmp_path / "x.pth")
        network = load_published(tmp_path / "x.pth", "densenet121", 5, input_size=64).network
        assert_same_network(network, original)
        assert not network.body.get_buffer("features.norm0.num_batches_tracked")

    @pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
    def test_our_own_networks_are_read_whatever_the_file_is_called(self, suffix, tmp_path):
        original = with_statistics(build("resnet8_w4", 3))
        original.normalise.mean.fill_(0.3)
        original.normalise.std.fill_(0.2)
        save_weights(tmp_path / f"x{suffix}", original, {"architecture": "resnet8_w4"})
        imported = load_published(tmp_path / f"x{suffix}", "resnet8_w4", None, input_size=32)
        assert imported.facts["format"] == "safetensors"
        with torch.no_grad():
            assert torch.equal(imported.network(images()), original(images()))

    @pytest.mark.parametrize("architecture", ["timm_resnet10t", "timm_vit_tiny_patch16_224", "timm_convnext_atto"])
    def test_timms_weights_are_read(self, architecture, tmp_path):
        timm = pytest.importorskip("timm", reason="not installed: make setup EXTRAS=timm")
        original = with_statistics(timm.create_model(architecture.removeprefix("timm_"), num_classes=6))
        save_file(original.state_dict(), tmp_path / "model.safetensors")
        network = load_published(tmp_path / "model.safetensors", architecture, 6, input_size=224).network
        assert_same_network(network, original, side=224)

    def test_timms_networks_of_two_heads_are_refused(self):
        pytest.importorskip("timm", reason="not installed: make setup EXTRAS=timm")
        with pytest.raises(ValueError, match=r"timm has .'head', 'head_dist'. as its last layer"):
            head_path(build("timm_deit_tiny_distilled_patch16_224", 2))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_weights_of_any_floating_type_become_float32(self, dtype, tmp_path):
        original = with_statistics(build("resnet8_w4", 3)).to(dtype)
        torch.save(original.state_dict(), tmp_path / "x.pt")
        network = load_published(tmp_path / "x.pt", "resnet8_w4", 3, input_size=32).network
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
        assert torch.equal(network.head.weight, original.head.weight.float())


class TestStateDicts:
    def refused(self, content, says, tmp_path, architecture="resnet8_w4"):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(CheckpointError) as error:
            load_published(tmp_path / "x.pt", architecture, 3, input_size=32)
        assert says in str(error.value)
        assert str(tmp_path / "x.pt") in str(error.value)

    def test_missing_unexpected_and_mistyped_weights_are_named(self, tmp_path):
        state = build("resnet8_w4", 3).state_dict()
        less = {name: tensor for name, tensor in state.items() if name != "head.bias"}
        self.refused(less, "head.bias is missing", tmp_path)
        self.refused(state | {"extra": torch.ones(1)}, "extra is unexpected", tmp_path)
        self.refused(
            state | {"head.bias": torch.ones(3, dtype=torch.int64)},
            "head.bias is int64 where the network has float32",
            tmp_path,
        )
        self.refused(state | {"head.bias": torch.ones(4)}, "head.bias is [4] where the network has [3]", tmp_path)

    def test_ambiguous_wrappings_are_refused(self, tmp_path):
        state = build("resnet8_w4", 3).state_dict()
        self.refused(state | {"module.head.bias": torch.ones(3)}, "both as module.<name> and as <name>", tmp_path)

    def test_what_holds_no_state_dict_is_refused(self, tmp_path):
        self.refused({"epoch": 3, "arch": "x"}, "no weights in it: neither 'model' nor 'state_dict'", tmp_path)
        self.refused([torch.ones(2)], "holds a list, where a dict of weights is needed", tmp_path)
        self.refused({"model": {"fc.weight": "text"}}, "a str named 'fc.weight' among its weights", tmp_path)
        self.refused({}, "but nothing", tmp_path)

    def test_whole_networks_are_refused_with_what_to_save(self, tmp_path):
        whole = nn.Linear(2, 2)
        self.refused(whole, "is an object of torch.nn.modules.linear.Linear, which is not executed", tmp_path)
        self.refused({"model": whole}, "'model' is an object of torch.nn.modules.linear.Linear", tmp_path)

    def test_something_foreign_among_the_weights_is_named(self, tmp_path):
        state = {"fc.weight": torch.ones(2), "fc.scale": pathlib.PurePath}
        self.refused({"model": state}, "'model' has pathlib.PurePath among its weights ('fc.scale')", tmp_path)

    def test_wrappers_are_stripped_and_their_repetitions_left_out(self, tmp_path):
        state = {
            f"module.{name}": torch.ones(1)
            for name in ("model.model.fc.weight", "attacker.model.model.fc.weight", "attacker.normalize.new_mean")
        }
        found = unwrapped(state, tmp_path)
        assert (list(found.state), found.wrapper) == (["fc.weight"], "module.model.model.")
        assert (found.mean, found.std) == (None, None)

    def test_the_first_known_key_is_taken(self, tmp_path):
        content = {"model": {"a": torch.ones(1)}, "state_dict": {"b": torch.ones(1)}}
        assert find_state(Checkpoint(content, (), "zip"), tmp_path).key == "model"
        assert (
            find_state(Checkpoint({"model": "resnet18"} | {"state_dict": content["model"]}, (), "zip"), tmp_path).key
            == "state_dict"
        )


class TestContent:
    """What is not foreign is what torch reads."""

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @FORMATS
    def test_all_that_checkpoints_hold_is_read_as_torch_reads_it(self, stream, protocol, tmp_path):
        base = torch.arange(24.0)
        types = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.bool, torch.complex64)
        content: dict[str, Any] = {
            "ordered": collections.OrderedDict([("a", base), ("b", base.view(4, 6).T[1:3])]),
            "types": {str(dtype): torch.ones(3).to(dtype) for dtype in types},
            "parameter": nn.Parameter(torch.ones(2)),
            "none": torch.empty(0, 4),
            "scalar": torch.tensor(3),
            "plain": [1, -(2**40), 2.5, "ä", b"bytes", None, True, (1,), {2}, frozenset({3})],
            "counter": collections.Counter("aab"),
            "default": collections.defaultdict(list, x=[1]),
            "size": torch.Size([2, 3]),
            "numbers": [np.float32(1.5), np.int64(-7), np.float64(2.25), np.bool_(True), np.uint8(200)],
        }
        torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not stream, pickle_protocol=protocol)
        checkpoint = read_checkpoint(tmp_path / "x.pt")
        found = checkpoint.content
        assert checkpoint.globals_met in (("builtins.list",), ("__builtin__.list",))  # the default's, not called
        for name in ("plain", "size", "numbers", "counter", "default"):
            assert found[name] == content[name]
        assert [type(number) for number in found["numbers"]] == [float, int, float, bool, int]
        for name, tensor in content["types"].items():
            assert found["types"][name].dtype == tensor.dtype
            assert torch.equal(found["types"][name], tensor)
        assert torch.equal(found["ordered"]["b"], content["ordered"]["b"])
        assert torch.equal(found["parameter"], content["parameter"])
        assert (found["none"].shape, found["scalar"].item()) == ((0, 4), 3)
        found["ordered"]["a"][1] = 99  # shared, as it was
        assert found["ordered"]["b"][0, 0] == 99

    def test_a_storage_within_another_is_read_as_old_torch_wrote_it(self, tmp_path):
        raw = struct.pack("<4f", 1, 2, 3, 4)
        inner = Viewed(Stored("1", 4, view=("2", 1, 2)), (2,), (1,))
        path = write_stream(tmp_path / "x.pt", {"a": inner}, [("1", 4, raw)])
        assert read_checkpoint(path).content["a"].tolist() == [2, 3]
        outside = Viewed(Stored("1", 4, view=("2", 3, 2)), (2,), (1,))
        path = write_stream(tmp_path / "x.pt", {"a": outside}, [("1", 4, raw)])
        with pytest.raises(CheckpointError, match="a view reaches outside storage '1'"):
            read_checkpoint(path)

    @FORMATS
    def test_conjugates_are_not_taken_for_what_is_stored(self, stream, tmp_path):
        torch.save(
            [torch.ones(2, dtype=torch.complex64).conj()], tmp_path / "x", _use_new_zipfile_serialization=not stream
        )
        assert isinstance(read_checkpoint(tmp_path / "x").content[0], Placeholder)


class TestHostile:
    @pytest.mark.parametrize("name", hostile_pickles("x"))
    @WRITERS
    def test_nothing_is_executed(self, write, name, canary, tmp_path):
        content = hostile_pickles(canary)[name]
        try:
            pickle.loads(content)
        except (TypeError, AttributeError, pickle.UnpicklingError):
            assert name in ("state", "argument of a known function", "new, filled")
        assert canary.exists()  # in earnest it does
        canary.unlink()
        sys.modules.pop("side_effects", None)
        path = write(tmp_path / "x.ckpt", content)
        checkpoint = read_checkpoint(path)
        assert len(checkpoint.globals_met) >= 1
        with pytest.raises(CheckpointError):
            load_published(path, "resnet8_w4", 3, input_size=32)
        assert not canary.exists()
        assert "side_effects" not in sys.modules

    def test_beside_the_weights_it_is_listed(self, canary, tmp_path):
        network = build("resnet8_w4", 3)

        class Evil:
            def __reduce__(self):
                return eval, (f"open({str(canary)!r}, 'w')",)

        torch.save({"model": network.state_dict(), "optimizer": Evil(), "epoch": Evil()}, tmp_path / "x.pt")
        imported = load_published(tmp_path / "x.pt", "resnet8_w4", 3, input_size=32)
        assert imported.facts["globals_met"] in (["builtins.eval"], ["__builtin__.eval"])
        assert imported.facts["epoch"] is None
        assert torch.equal(imported.network.head.weight, network.head.weight)
        assert not canary.exists()

    @pytest.mark.parametrize(
        ("size", "stride", "offset"),
        [((5,), (1,), 0), ((4,), (1,), 1), ((2, 2), (3, 1), 0), ((2,), (2**40,), 0), ((2**40,), (0,), 0),
         ((-1,), (1,), 0), ((2,), (-1,), 3), ((1,), (1,), -1), ((2,), (1, 1), 0),
         ((2**62, 2**62), (0, 0), 0), ((True,), (1,), 0)],
    )  # fmt: skip
    @WRITERS
    def test_tensors_stay_within_their_storage(self, write, size, stride, offset, tmp_path):
        content = {"a": Viewed(Stored("0", 4), size, stride, offset)}
        path = write(tmp_path / "x.pt", content, [("0", 4, bytes(16))])
        with pytest.raises(CheckpointError, match="a tensor "):
            read_checkpoint(path)

    @pytest.mark.parametrize("numel", [2**60, 2**31, 10_000, -1])
    @WRITERS
    def test_storages_stay_within_the_file(self, write, numel, tmp_path):
        path = write(tmp_path / "x.pt", {"a": Viewed(Stored("0", numel), (4,), (1,))}, [("0", numel, bytes(16))])
        with pytest.raises(CheckpointError, match=r"storage '0' claims -?\d+ bytes of a file of"):
            read_checkpoint(path)

    def test_many_storages_together_stay_within_the_file(self, tmp_path):
        content = [Viewed(Stored(str(i), 100), (1,), (1,)) for i in range(100)]
        size = len(pickled(content))
        path = write_stream(tmp_path / "x.pt", content, [("0", 100, bytes(400))])
        assert size < 100 * 400  # else the file would be large enough for all
        with pytest.raises(CheckpointError, match="claims 400 bytes"):
            read_checkpoint(path)

    def test_compressed_archives_are_refused(self, tmp_path):
        numel = 2**24
        content = {"a": Viewed(Stored("0", numel), (numel,), (1,))}
        path = write_zip(tmp_path / "x.pt", content, [("0", 0, bytes(4 * numel))], compression=zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < numel / 100
        with pytest.raises(CheckpointError, match=r"is compressed, which torch\.save never does"):
            read_checkpoint(path)

    @pytest.mark.parametrize(
        "claim",
        [b"\x80\x05\x96" + struct.pack("<Q", 2**50) + b"x.", b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b"x.",
         b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b"x.", b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x."],
        ids=["bytearray", "bytes", "string", "number"],
    )  # fmt: skip
    def test_what_a_pickle_claims_is_not_allocated(self, claim, tmp_path):
        with pytest.raises(CheckpointError, match=f"claims more than {pickle_machine.PICKLE_BYTES} bytes"):
            read_checkpoint(write_stream(tmp_path / "x.pt", claim))

    def test_pickles_that_never_end_well_end_soon(self, tmp_path, monkeypatch):
        start = time.monotonic()
        far = b"\x80\x02]r\xff\xff\xff\xff."  # the memo's index 2³² - 1
        assert read_checkpoint(write_stream(tmp_path / "x.pt", far)).content == []
        nested = b"\x80\x02})" + b"2\x86" * 70 + b"Ns."  # a key whose hash takes 2⁷⁰ steps
        (key,) = read_checkpoint(write_stream(tmp_path / "x.pt", nested)).content
        assert key.name == "a tuple as a key"
        deep = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
        assert isinstance(read_checkpoint(write_stream(tmp_path / "x.pt", deep)).content, list)
        long = b"\x80\x02\x8b" + struct.pack("<i", 1000) + b"\x01" * 1000 + b"."
        assert isinstance(read_checkpoint(write_stream(tmp_path / "x.pt", long)).content, Placeholder)
        monkeypatch.setattr(pickle_machine, "STEPS", 1000)
        with pytest.raises(CheckpointError, match="takes over 1000 steps"):
            read_checkpoint(write_stream(tmp_path / "x.pt", b"\x80\x02" + b"}" * 2000 + b"."))
        assert time.monotonic() - start < 20

    def test_what_is_no_opcode_sequence_is_refused(self, tmp_path):
        for content in (b"\x80\x02.", b"\x80\x02N", b"\x80\x09N.", b"\x80\x02h\x05.", b"\x80\x02t.", b"\x80\x02NNR.",
                        b"\x80\x02]K\x01K\x02s.", b"\x80\x02NK\x01a.", b"\x80\x02\xff."):  # fmt: skip
            with pytest.raises(CheckpointError):
                read_checkpoint(write_stream(tmp_path / "x.pt", content))

    @pytest.mark.parametrize("write", [write_stream, write_zip], ids=["stream", "zip"])
    def test_no_alteration_makes_another_error(self, write, tmp_path, canary):
        content = {"model": {"a": Viewed(Stored("0", 4), (2, 2), (2, 1))}, "numbers": [np.float64(1), {2}]}
        path = write(tmp_path / "x.pt", content, [("0", 4, bytes(16))])
        original, chance = path.read_bytes(), random.Random(0)
        read_checkpoint(path)
        refused = 0
        for _ in range(400):
            altered = bytearray(original)
            for _ in range(chance.choice((1, 1, 2, 4))):
                altered[chance.randrange(len(altered))] = chance.randrange(256)
            path.write_bytes(altered)
            try:
                read_checkpoint(path)
            except CheckpointError:
                refused += 1
        assert refused > 100


class TestDamaged:
    @FORMATS
    def test_wherever_a_file_is_cut_it_is_refused(self, stream, tmp_path):
        content = {"model": {"a": torch.ones(50), "b": torch.ones(20)}, "epoch": 3}
        torch.save(content, tmp_path / "whole", _use_new_zipfile_serialization=not stream)
        whole = (tmp_path / "whole").read_bytes()
        for length in {*range(1, len(whole), 17), len(whole) - 1, len(whole) - 4}:
            (tmp_path / "cut").write_bytes(whole[:length])
            with pytest.raises(CheckpointError, match="cut"):
                read_checkpoint(tmp_path / "cut")

    def test_the_storage_that_is_cut_is_named(self, tmp_path):
        content = {"a": Viewed(Stored("77", 4), (4,), (1,))}
        with pytest.raises(CheckpointError, match="ends after 8 of the 16 bytes of storage '77'"):
            read_checkpoint(write_stream(tmp_path / "x", content, [("77", 4, bytes(8))]))
        with pytest.raises(CheckpointError, match="storage '77' has 3 elements where the pickle says 4"):
            read_checkpoint(write_stream(tmp_path / "x", content, [("77", 3, bytes(16))]))
        with pytest.raises(CheckpointError, match="lists other storages than its tensors use"):
            read_checkpoint(write_stream(tmp_path / "x", content, [("77", 4, bytes(16))], keys=[]))
        with pytest.raises(CheckpointError, match="storage '77' is missing from the zip"):
            read_checkpoint(write_zip(tmp_path / "x", content))
        with pytest.raises(CheckpointError, match="storage '77' has 12 bytes where the pickle says 16"):
            read_checkpoint(write_zip(tmp_path / "x", content, [("77", 4, bytes(12))]))

    def test_a_flipped_bit_in_a_zip_is_found(self, tmp_path):
        path = write_zip(tmp_path / "x", {"a": Viewed(Stored("0", 4), (4,), (1,))}, [("0", 4, b"x" * 16)])
        path.write_bytes(path.read_bytes().replace(b"x" * 16, b"x" * 15 + b"y"))
        with pytest.raises(CheckpointError, match="Bad CRC"):
            read_checkpoint(path)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "an empty file"),
            (
                b"\n<!DOCTYPE html><html><body>Not found",
                "is an HTML page, not a checkpoint; the download failed: fetch",
            ),
            (b"<HTML>", "is an HTML page"),
            (b"<?xml version='1.0'?><Error><Code>AccessDenied", "is an XML message, not a checkpoint"),
            (b'{"error": "gated"}', "is a JSON message, not a checkpoint"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a Git LFS pointer"),
            (b"\x1f\x8b\x08\x00", "a compressed file; unpack it first"),
            (b"\x00\x01\x02", "not a checkpoint: it begins with"),
            (pickle.dumps({"model": 3}), "a pickle, but not one of torch.save"),
            (b"PK\x03\x04 and no more", "the zip is cut short or damaged"),
        ],
    )
    def test_what_is_no_checkpoint_is_named(self, content, says, tmp_path):
        (tmp_path / "resnet18.ckpt").write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            read_checkpoint(tmp_path / "resnet18.ckpt")
        assert says in str(error.value)
        assert "resnet18.ckpt" in str(error.value)

    def test_archives_of_other_kinds_are_named(self, tmp_path):
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            archive.add(__file__, "storages")
        with pytest.raises(CheckpointError, match=r"a tar archive. If it is torch's own format of before 2017"):
            read_checkpoint(tmp_path / "x.tar")
        write_zip(tmp_path / "x.pt", {}, more=[("archive/constants.pkl", b""), ("archive/code/x.py", b"")])
        with pytest.raises(CheckpointError, match="a TorchScript archive"):
            read_checkpoint(tmp_path / "x.pt")
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("resnet18.ckpt", b"x")
        with pytest.raises(CheckpointError, match=r"a zip that torch\.save did not write"):
            read_checkpoint(tmp_path / "x.zip")
        for path in (tmp_path, tmp_path / "missing"):
            with pytest.raises(CheckpointError, match="no such file"):
                read_checkpoint(path)

    def test_big_endian_and_unknown_streams_are_refused(self, tmp_path):
        for path in (
            write_stream(tmp_path / "a", {}, little=False),
            write_zip(tmp_path / "b", {}, byteorder=b"big"),
            write_stream(tmp_path / "c", [np.dtype(">f8").type(1), np.array(1, ">f8").dtype]),
        ):
            with pytest.raises(CheckpointError, match="big-endian"):
                read_checkpoint(path)
        with pytest.raises(CheckpointError, match="not torch's protocol 1001"):
            read_checkpoint(write_stream(tmp_path / "a", {}, protocol=1002))

    def test_safetensors_cut_short_are_refused(self, tmp_path):
        save_file({"a": torch.ones(100)}, tmp_path / "x.safetensors")
        whole = (tmp_path / "x.safetensors").read_bytes()
        for length in (4, 20, 200, len(whole) - 1):
            (tmp_path / "x.safetensors").write_bytes(whole[:length])
            with pytest.raises(CheckpointError, match="cut short"):
                read_checkpoint(tmp_path / "x.safetensors")


class TestKeys:
    """Where the weights are in a file, by what name, and which of several."""

    @pytest.fixture
    def network(self):
        return with_statistics(build("resnet8_w4", 3, seed=1))

    @pytest.fixture
    def average(self):
        return with_statistics(build("resnet8_w4", 3, seed=2), seed=1)

    def imported(self, content, tmp_path, key=None):
        torch.save(content, tmp_path / "x.pt")
        return load_published(tmp_path / "x.pt", "resnet8_w4", None, input_size=32, key=key)

    def refused(self, content, says, tmp_path, key=None):
        with pytest.raises(CheckpointError, match=says) as error:
            self.imported(content, tmp_path, key)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 2000
        return str(error.value)

    @pytest.mark.parametrize(
        "prefix",
        ["_orig_mod.", "module.module.", "module._orig_mod.", "_orig_mod.module.", "model._orig_mod.", "net.",
         "backbone.", "module.net.", "model.module.model.", "_fsdp_wrapped_module.", "network.model."],
    )  # fmt: skip
    def test_prefixes_of_wrappers_are_removed(self, prefix, network, tmp_path):
        state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
        imported = self.imported({"state_dict": state}, tmp_path)
        assert torch.equal(imported.network.head.weight, network.head.weight)
        assert sorted(imported.facts["wrapper"].split(".")) == sorted(prefix.split("."))

    @pytest.mark.parametrize("prefix", ["ema_model.", "module.ema.", "ema_model.module._orig_mod.", "model_ema.model."])
    @pytest.mark.parametrize("key", ["state_dict", "checkpoint.model_state_dict", "state_dict_ema"])
    def test_an_average_alone_in_the_file_is_read_and_named_so(self, key, prefix, network, tmp_path):
        content = {prefix + name: tensor for name, tensor in network.state_dict().items()}
        for part in reversed(key.split(".")):
            content = {part: content, "epoch": 3}
        imported = self.imported(content, tmp_path)
        assert torch.equal(imported.network.head.weight, network.head.weight)
        assert imported.facts["key"] == key
        assert imported.facts["averaged"]
        assert sorted(imported.facts["wrapper"].split(".")) == sorted(prefix.split("."))

    @pytest.mark.parametrize(
        "prefix", ["module._orig_mod.", "_orig_mod.module.model.", "net.module._orig_mod.", "model."]
    )
    @pytest.mark.parametrize("key", ["model.state_dict", "state_dict.model_state_dict", "state_dict_ema.module"])
    def test_keys_and_prefixes_within_each_other_are_removed(self, key, prefix, network, tmp_path):
        content = {prefix + name: tensor for name, tensor in network.state_dict().items()}
        for part in reversed(key.split(".")):
            content = {part: content}
        imported = self.imported(content, tmp_path)
        assert torch.equal(imported.network.head.weight, network.head.weight)
        assert (imported.facts["key"], imported.facts["averaged"]) == (key, "ema" in key)
        assert sorted(imported.facts["wrapper"].split(".")) == sorted(prefix.split("."))

    def test_a_part_that_was_compiled_alone_is_read(self, network, tmp_path):
        state = {name.replace("body.", "body._orig_mod."): tensor for name, tensor in network.state_dict().items()}
        assert torch.equal(self.imported(state, tmp_path).network.head.weight, network.head.weight)

    @pytest.mark.parametrize(
        "key",
        ["net", "model_state_dict", "network", "weights", "params", "classifier", "checkpoint.model", "a.b.state_dict",
         "model.state_dict", "state_dict_ema", "ema", "model_ema", "ema.module", "swa_model", "ema_state_dict"],
    )  # fmt: skip
    def test_weights_are_found_at_any_key(self, key, network, tmp_path):
        content = network.state_dict()
        for part in reversed(key.split(".")):
            content = {part: content, "epoch": 3}
        momenta = {"state": {name: {"weight": torch.ones(1)} for name in ("a", "b")}, "head.weight": torch.ones(2)}
        imported = self.imported(content | {"optimizer": momenta, "lr_scheduler": {"weight": torch.ones(1)}}, tmp_path)
        assert torch.equal(imported.network.head.weight, network.head.weight)
        assert imported.facts["key"] == key
        assert imported.facts["averaged"] == ("ema" in key or "swa" in key)
        assert imported.facts["others"] == []

    @pytest.mark.parametrize(
        ("raw", "averaged"),
        [("state_dict", "state_dict_ema"), ("model", "ema"), ("net", "net_ema"), ("params", "params_ema"),
         ("model", "model_ema"), ("model", "averaged_model"), ("model", "ema.state_dict"), ("file", "ema"),
         ("weights", "swa")],
    )  # fmt: skip
    def test_averages_beside_raw_weights_are_refused_unless_the_key_says_which(
        self, raw, averaged, network, average, tmp_path
    ):
        content = network.state_dict() if raw == "file" else {raw: network.state_dict()}
        inner = average.state_dict()
        for part in reversed(averaged.split(".")):
            inner = {part: inner}
        content = {**content, **inner}
        error = self.refused(content, rf"raw weights \('{raw}'\) and averaged ones \('{averaged}'\)", tmp_path)
        assert f"key: {averaged}" in error
        for key, original in ((raw, network), (averaged, average)):
            imported = self.imported(content, tmp_path, key)
            assert torch.equal(imported.network.head.weight, original.head.weight)
            facts = imported.facts
            assert (facts["key"], facts["averaged"]) == (key, key == averaged)
            assert facts["others"] == [averaged if key == raw else raw]

    @pytest.mark.parametrize("around", ["", "module."])
    @pytest.mark.parametrize("raw", ["model.", ""])
    def test_averages_beside_raw_weights_under_a_prefix_are_refused_too(self, raw, around, network, average, tmp_path):
        state = {f"{around}{raw}{name}": tensor for name, tensor in network.state_dict().items()}
        state |= {f"{around}model_ema.{name}": tensor for name, tensor in average.state_dict().items()}
        self.refused(
            {"state_dict": state}, rf"averaged ones \({around}model_ema\.….*key: {around}model_ema}}`", tmp_path
        )
        imported = self.imported({"state_dict": state}, tmp_path, f"{around}model_ema")
        assert torch.equal(imported.network.head.weight, average.head.weight)
        assert imported.facts["averaged"]
        if raw:
            imported = self.imported({"state_dict": state}, tmp_path, f"{around}model")
            assert torch.equal(imported.network.head.weight, network.head.weight)

    def test_torchs_own_average_is_read_and_named_so(self, network, tmp_path):
        averaged = torch.optim.swa_utils.AveragedModel(network)
        averaged.update_parameters(network)
        imported = self.imported(averaged.state_dict(), tmp_path)
        assert torch.equal(imported.network.head.weight, network.head.weight)
        assert imported.facts["averaged"]

    def test_several_of_unknown_names_are_refused(self, network, average, tmp_path):
        content = {"student": network.state_dict(), "guide": average.state_dict()}
        self.refused(content, r"several dicts of weights \('student'; 'guide'\).*key: student", tmp_path)
        assert torch.equal(self.imported(content, tmp_path, "guide").network.head.weight, average.head.weight)

    def test_a_key_that_is_not_there_is_refused_with_those_that_are(self, network, tmp_path):
        self.refused({"net": network.state_dict()}, r"no weights at key 'ema'; it has them at 'net'", tmp_path, "ema")

    def test_missing_and_unexpected_names_are_listed_apart(self, network, tmp_path):
        state = {f"trunk.{name}": tensor for name, tensor in network.state_dict().items()}
        error = self.refused(state, r"is missing; and \d+ more; trunk\.[\w.]+ is unexpected; .*and \d+ more", tmp_path)
        assert error.count("is missing") == error.count("is unexpected") == 3
        assert torch.equal(self.imported(state, tmp_path, "trunk").network.head.weight, network.head.weight)


class TestValues:
    """Weights that no network can have."""

    def refused(self, tmp_path, says, **changed):
        state = {**build("resnet8_w4", 3).state_dict(), **changed}
        torch.save(state, tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match=says) as error:
            load_published(tmp_path / "x.pt", "resnet8_w4", None, input_size=32)
        return str(error.value)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize(
        "name", ["head.weight", "body.stem.1.running_mean", "body.stem.1.running_var", "head.bias"]
    )
    def test_what_is_not_finite_is_refused(self, name, value, tmp_path):
        tensor = build("resnet8_w4", 3).state_dict()[name].clone()
        tensor.flatten()[1] = value
        self.refused(
            tmp_path, rf"{name} has 1 values of {tensor.numel()} that are not finite \({value}\)", **{name: tensor}
        )

    def test_a_variance_that_is_negative_is_refused(self, tmp_path):
        name = "body.stem.1.running_var"
        self.refused(tmp_path, rf"{name} has 4 negative values of 4 \(-1\), and it is a var", **{name: -torch.ones(4)})

    def test_what_float32_cannot_hold_is_refused(self, tmp_path):
        self.refused(
            tmp_path,
            "head.bias has values that float32 cannot hold",
            **{"head.bias": torch.full((3,), 1e300, dtype=torch.float64)},
        )

    def test_complex_and_float8_weights_are_refused(self, tmp_path):
        self.refused(
            tmp_path, "head.bias is complex64 where the network", **{"head.bias": torch.ones(3).to(torch.complex64)}
        )
        for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            error = self.refused(tmp_path, "a type that is not read; save", **{"head.bias": torch.ones(3).to(dtype)})
            assert str(dtype).removeprefix("torch.") in error
        state = build("resnet8_w4", 3).state_dict() | {"head.bias": torch.ones(3).to(torch.float8_e4m3fn)}
        save_file(state, tmp_path / "x.safetensors")
        with pytest.raises(CheckpointError, match=r"head\.bias is float8_e4m3fn, of quantised weights"):
            load_published(tmp_path / "x.safetensors", "resnet8_w4", None, input_size=32)

    def test_half_a_normalisation_and_one_of_bytes_are_refused(self, tmp_path):
        mean = torch.tensor([0.5, 0.5, 0.5]).view(1, 3, 1, 1)
        state = {name: one for name, one in build("resnet8_w4", 3).state_dict().items() if "normalise" not in name}
        for given, says in (
            ({"normalise.mean": mean}, "a normalisation's mean and no std"),
            ({"normalise.std": mean}, "a normalisation's std and no mean"),
            (
                {"normalise.mean": 255 * mean, "normalise.std": 58 * mean},
                r"the mean 127.5, 127.5, 127.5, where images are",
            ),
        ):
            torch.save(state | given, tmp_path / "x.pt")
            with pytest.raises(CheckpointError, match=says):
                load_published(tmp_path / "x.pt", "resnet8_w4", None, input_size=32)

    @pytest.mark.parametrize("shape", [(30_000_000, 0), (0, 16), (0,), (30_000_000, 0, 1)])
    def test_no_memory_is_taken_for_a_head_that_is_none(self, shape, tmp_path, monkeypatch):
        monkeypatch.setattr(Network, "replace_head", None)
        self.refused(tmp_path, r"head.weight is \[\d+", **{"head.weight": torch.empty(shape)})

    def test_a_hint_never_says_that_a_number_of_classes_is_not_itself(self, tmp_path):
        torch.save(build("resnet8_w4", 3).state_dict() | {"head.bias": torch.ones(4)}, tmp_path / "x.pt")
        for classes in (3, None):
            with pytest.raises(CheckpointError) as error:
                load_published(tmp_path / "x.pt", "resnet8_w4", classes, input_size=32)
            assert "classes, not" not in str(error.value)


class TestMessages:
    """Names in a file are someone else's text: messages stay short and in one line."""

    LONG = "x" * 20_000_000
    ESCAPES = "\x1b[2J\x1b]0;gone\x07\nweight\u202e"

    @pytest.mark.parametrize("name", [LONG, ESCAPES], ids=["long", "escapes"])
    @FORMATS
    def test_names_are_short_and_printable(self, name, stream, tmp_path):
        state = build("resnet8_w4", 3).state_dict()
        contents = [state | {name: torch.ones(1)}, state | {name: "text"}, {name: 3}, {"model": {name: 3}},
                    {name: state, "other": state}, {"model": state, name + ".ema": state}]  # fmt: skip
        for content in contents:
            torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not stream)
            with pytest.raises(CheckpointError) as error:
                load_published(tmp_path / "x.pt", "resnet8_w4", None, input_size=32)
            assert str(error.value).isprintable()
            assert len(str(error.value)) < 1500

    def test_safetensors_names_are_too(self, tmp_path):
        state = build("resnet8_w4", 3).state_dict() | {self.ESCAPES: torch.ones(1)}
        save_file(state, tmp_path / "x.safetensors")
        with pytest.raises(CheckpointError) as error:
            load_published(tmp_path / "x.safetensors", "resnet8_w4", None, input_size=32)
        assert str(error.value).isprintable()

    @pytest.mark.parametrize("kind", ["dict", "set"])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_keys_that_share_a_hash_do_not_hang(self, kind, sign, tmp_path):
        """A dict of these 80,000 takes a minute; that of 400,000, for which a file has room, half an hour."""
        keys = [sign * i * (2**61 - 1) for i in range(1, 80_000)]
        parts = [pickle.dumps(key, 2)[2:-1] for key in keys]
        made = b"(" + b"N".join(parts) + b"Nd." if kind == "dict" else b"\x8f(" + b"".join(parts) + b"\x90."
        start = time.monotonic()
        read_checkpoint(write_stream(tmp_path / "x.pt", b"\x80\x04" + made))
        assert time.monotonic() - start < 15

    def test_memo_indices_are_as_small_as_pickles_have_them(self, tmp_path):
        with pytest.raises(CheckpointError, match="a memo index of 61 bits"):
            read_checkpoint(write_stream(tmp_path / "x.pt", b"Np%d\n." % (2**61 - 1)))

    def test_keys_whose_hash_a_file_chooses_are_none(self):
        for key in (2**60, -(2**61), 10**30, (1, 2), (1.5,), ("a", 1)):
            assert isinstance(as_key(key), Placeholder)
        for kept in ("a", b"a", 0, -1, 2**59, 140_000_000_000_000, 2.5, None, True, ("a", "b")):
            assert as_key(kept) == kept

    def test_a_folder_is_named_as_one(self, tmp_path):
        (tmp_path / "model.safetensors").write_bytes(b"x")
        with pytest.raises(CheckpointError, match=r"no such file: it is a folder; .* in it: model\.safetensors"):
            read_checkpoint(tmp_path)

    @pytest.mark.parametrize(
        ("head", "says"),
        [(b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"), (b"Rar!\x1a\x07\x01\x00", "a RAR archive; unpack"),
         (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it first"),
         (b"\xef\xbb\xbf<!DOCTYPE html><html>", "an HTML page"), (b"\n\xef\xbb\xbf<html>", "an HTML page"),
         (b'\xef\xbb\xbf{"error": 1}', "a JSON message")],
    )  # fmt: skip
    def test_other_formats_are_named(self, head, says, tmp_path):
        (tmp_path / "x.ckpt").write_bytes(head + bytes(64))
        with pytest.raises(CheckpointError, match=says):
            read_checkpoint(tmp_path / "x.ckpt")
