"""State dicts as other programs name them, and position embeddings of another size."""

import re

import pytest
import torch
import torch.nn.functional as F
from robust_transfer.networks.build import Network, build
from robust_transfer.weights.checkpoints import load_published
from robust_transfer.weights.layouts import POSITIONS, by_todays_names
from robust_transfer.weights.pickles import CheckpointError
from support.checkpoint_files import with_statistics
from torch import Tensor, nn

State = dict[str, Tensor]
WIDTH, CLASSES = 2, 5
CHANNELS = (16, 16 * WIDTH, 32 * WIDTH, 64 * WIDTH)


def images(side: int) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def norm(name: str, channels: int) -> dict[str, list[int]]:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{one}": [channels] for one in names} | {f"{name}.num_batches_tracked": []}


def random_state(shapes: dict[str, list[int]]) -> State:
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.rand(shape, generator=generator) / 4 + 0.1 if shape else torch.tensor(7)
        for name, shape in shapes.items()
    }


def of_trades() -> State:
    """WRN-10-2 by the names of TRADES, with the stage that it saves and does not use."""
    shapes = {"conv1.weight": [16, 3, 3, 3]}
    stages = [("block1", 1), ("sub_block1", 1), ("block2", 2), ("block3", 3)]
    for name, i in stages:
        block, inside, outside = f"{name}.layer.0", CHANNELS[i - 1], CHANNELS[i]
        shapes |= norm(f"{block}.bn1", inside) | {f"{block}.conv1.weight": [outside, inside, 3, 3]}
        shapes |= norm(f"{block}.bn2", outside) | {f"{block}.conv2.weight": [outside, outside, 3, 3]}
        shapes |= {f"{block}.convShortcut.weight": [outside, inside, 1, 1]}
    shapes |= norm("bn1", CHANNELS[3]) | {"fc.weight": [CLASSES, CHANNELS[3]], "fc.bias": [CLASSES]}
    return random_state(shapes)


def of_gowal() -> State:
    """WRN-10-2 by the names of Gowal et al. (2020)."""
    shapes = {"init_conv.weight": [16, 3, 3, 3]}
    for i in range(3):
        block, inside, outside = f"layer.{i}.block.0", CHANNELS[i], CHANNELS[i + 1]
        shapes |= norm(f"{block}.batchnorm_0", inside) | {f"{block}.conv_0.weight": [outside, inside, 3, 3]}
        shapes |= norm(f"{block}.batchnorm_1", outside) | {f"{block}.conv_1.weight": [outside, outside, 3, 3]}
        shapes |= {f"{block}.shortcut.weight": [outside, inside, 1, 1]}
    shapes |= norm("batchnorm", CHANNELS[3]) | {"logits.weight": [CLASSES, CHANNELS[3]], "logits.bias": [CLASSES]}
    return random_state(shapes)


def normed(state: State, name: str, x: Tensor) -> Tensor:
    of = [state[f"{name}.{one}"] for one in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, of[0], of[1], of[2], of[3], eps=1e-5)


def logits_of_trades(state: State, x: Tensor) -> Tensor:
    """The network that these names belong to, written from its paper."""
    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for name, stride in (("block1", 1), ("block2", 2), ("block3", 2)):
        block = f"{name}.layer.0"
        x = F.relu(normed(state, f"{block}.bn1", x))
        y = F.conv2d(x, state[f"{block}.conv1.weight"], stride=stride, padding=1)
        y = F.conv2d(F.relu(normed(state, f"{block}.bn2", y)), state[f"{block}.conv2.weight"], padding=1)
        x = y + F.conv2d(x, state[f"{block}.convShortcut.weight"], stride=stride)
    x = F.relu(normed(state, "bn1", x)).mean((2, 3))
    return F.linear(x, state["fc.weight"], state["fc.bias"])


def logits_of_gowal(state: State, x: Tensor) -> Tensor:
    """Swish in place of ReLU, and at stride 2 rows and columns of zeros below and to the right alone."""
    x = F.conv2d(x, state["init_conv.weight"], padding=1)
    for i, stride in enumerate((1, 2, 2)):
        block = f"layer.{i}.block.0"
        x = F.silu(normed(state, f"{block}.batchnorm_0", x))
        padded = F.pad(x, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))
        y = F.conv2d(padded, state[f"{block}.conv_0.weight"], stride=stride)
        y = F.conv2d(F.silu(normed(state, f"{block}.batchnorm_1", y)), state[f"{block}.conv_1.weight"], padding=1)
        x = y + F.conv2d(x, state[f"{block}.shortcut.weight"], stride=stride)
    x = F.silu(normed(state, "batchnorm", x)).mean((2, 3))
    return F.linear(x, state["logits.weight"], state["logits.bias"])


class TestWideResNets:
    @pytest.mark.parametrize(
        ("architecture", "state", "logits"),
        [("wrn10_2", of_trades(), logits_of_trades), ("wrn10_2_swish", of_gowal(), logits_of_gowal)],
    )
    @pytest.mark.parametrize("wrapper", ["", "module."])
    def test_both_are_read_by_their_own_names_and_compute_the_same(
        self, architecture, state, logits, wrapper, tmp_path
    ):
        torch.save({"state_dict": {wrapper + name: one for name, one in state.items()}}, tmp_path / "x.pt")
        network = load_published(tmp_path / "x.pt", architecture, CLASSES, input_size=32).network
        x = images(32)
        with torch.no_grad():
            torch.testing.assert_close(network(x), logits(state, network.normalise(x)), rtol=1e-4, atol=1e-4)

    def test_blocks_of_a_stage_are_counted_on(self):
        network = build("wrn16_1", 3)  # two blocks in each stage
        state = {"block2.layer.1.bn1.weight": torch.ones(32), "layer.2.block.0.conv_1.weight": torch.ones(1)}
        renamed, _ = by_todays_names(state, network)
        assert [*renamed] == ["blocks.3.norm1.weight", "blocks.4.conv2.weight"]
        assert {*renamed} < {*network.body.state_dict()}

    def test_weights_of_the_other_kind_are_refused_by_shape_and_name_alone_where_they_differ(self, tmp_path):
        torch.save(of_trades(), tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match=r"not the weights of wrn16_2"):
            load_published(tmp_path / "x.pt", "wrn16_2", CLASSES, input_size=32)

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("wrn28_010", "zeros before a number make another name; write wrn28_10"),
            ("wrn30_10", r"6n \+ 4 layers"),
            ("wrn4_10", r"6n \+ 4 layers"),
            ("wrn28_0", "a width of 1 to"),
        ],
    )
    def test_names_of_none_are_refused(self, name, says):
        with pytest.raises(ValueError, match=says):
            build(name, 2)

    def test_the_size_is_the_published_one(self):
        with torch.device("meta"):
            assert build("wrn28_10", 10).parameters_n == build("wrn28_10_swish", 10).parameters_n == 36_479_194


class TestNormalisationInTheFile:
    @pytest.mark.parametrize(("mean", "std"), [("mu", "sigma"), ("normalize.mean", "normalize.std")])
    def test_robustbenchs_names_of_mean_and_std_are_read(self, mean, std, tmp_path):
        state = of_trades() | {mean: torch.full((1, 3, 1, 1), 0.4), std: torch.full((1, 3, 1, 1), 0.3)}
        torch.save(state, tmp_path / "x.pt")
        network = load_published(tmp_path / "x.pt", "wrn10_2", CLASSES, input_size=32).network
        assert network.normalise.mean.flatten().tolist() == pytest.approx([0.4] * 3)
        assert network.normalise.std.flatten().tolist() == pytest.approx([0.3] * 3)


class TestTorchvisionsViTs:
    """A small one in the place of `vit_b_32`, which is of 88 million parameters."""

    def vit(self, side: int, patch: int = 16) -> Network:
        models = pytest.importorskip("torchvision.models")
        body = models.VisionTransformer(side, patch, 1, 2, 12, 24)
        body.heads = nn.Identity()
        return Network("vit_b_16", body, 12, CLASSES)

    def test_positions_are_interpolated_as_torchvision_does(self):
        models = pytest.importorskip("torchvision.models")
        theirs, ours = self.vit(64), self.vit(32)
        state = {name: torch.rand_like(one) for name, one in theirs.body.state_dict().items()}
        renamed, said = by_todays_names(state, ours)
        assert said == [f"{POSITIONS} from 1×17×12 to 1×5×12"]
        expected = models.vision_transformer.interpolate_embeddings(32, 16, state)
        assert renamed.keys() == expected.keys()
        assert all(torch.equal(renamed[name], expected[name]) for name in renamed)
        ours.body.load_state_dict(renamed)
        assert ours(images(32)).shape == (2, CLASSES)

    def test_of_the_same_size_nothing_is(self):
        network = self.vit(32)
        state = network.body.state_dict()
        renamed, said = by_todays_names(state, network)
        assert said == []
        assert torch.equal(renamed[POSITIONS], state[POSITIONS])

    @pytest.mark.parametrize("shape", [(1, 5, 8), (1, 7, 12), (1, 1, 12), (5, 12), (2, 17, 12)])
    def test_what_are_no_positions_of_it_are_left_for_the_comparison_to_name(self, shape):
        network = self.vit(64)
        state = {**network.body.state_dict(), POSITIONS: torch.zeros(shape)}
        assert by_todays_names(state, network)[0][POSITIONS].shape == shape


class TestTimm:
    @pytest.fixture(autouse=True)
    def timm(self):
        return pytest.importorskip("timm", reason="not installed: make setup EXTRAS=timm")

    def test_positions_are_interpolated_as_timm_does(self, timm, tmp_path):
        original = with_statistics(timm.create_model("test_vit", num_classes=CLASSES))
        torch.save(original.state_dict(), tmp_path / "x.pt")
        imported = load_published(tmp_path / "x.pt", "timm_test_vit", CLASSES, input_size=64)
        (said,) = imported.facts["interpolated"]
        assert re.fullmatch(r"pos_embed from 1×101×64 to 1×17×64", said)
        ours = imported.network.body.get_parameter("pos_embed")
        expected = timm.layers.resample_abs_pos_embed(original.pos_embed, [4, 4], num_prefix_tokens=1)
        assert torch.equal(ours, expected)
        assert torch.equal(imported.network.head.weight, original.head.weight)

    def test_of_other_patches_it_is_another_network(self, timm, tmp_path):
        state = timm.create_model("test_vit", num_classes=CLASSES, patch_size=8, img_size=80).state_dict()
        torch.save(state, tmp_path / "x.pt")
        with pytest.raises(CheckpointError, match=r"body\.patch_embed\.proj\.weight is \[64, 3, 8, 8\]"):
            load_published(tmp_path / "x.pt", "timm_test_vit", CLASSES, input_size=160)

    def test_swins_by_the_names_of_their_time(self, timm, tmp_path):
        """Until timm 0.9 downsampling was the end of a stage, the head a layer, and masks were saved."""
        original = with_statistics(timm.create_model("swin_tiny_patch4_window7_224", num_classes=CLASSES, img_size=64))
        state = {}
        for name, one in original.state_dict().items():
            earlier = re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name)
            state[earlier.replace("head.fc.", "head.")] = one
        state["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
        state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
        torch.save({"state_dict": state}, tmp_path / "x.pt")
        imported = load_published(tmp_path / "x.pt", "timm_swin_tiny_patch4_window7_224", CLASSES, input_size=64)
        assert imported.facts["interpolated"] == []
        x = images(64)
        with torch.no_grad():
            torch.testing.assert_close(imported.network(x), original(imported.network.normalise(x)))

    @pytest.mark.parametrize("architecture", ["timm_test_vit", "timm_xcit_nano_12_p16_224"])
    def test_sizes_that_patches_do_not_divide_are_refused(self, architecture):
        with pytest.raises(ValueError, match=rf"{architecture} cannot take images of 40 px: .*input_size"):
            build(architecture, 2, input_size=40)
