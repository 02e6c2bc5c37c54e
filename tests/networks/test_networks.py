"""Networks: what each name builds, what lies in front of the head, folding, and weights that survive being stored."""

import json
import shutil

import pytest
import torch
from robust_transfer.architectures import CATALOGUE, CIFAR_RESNETS, check_architecture, timm_catalogue
from robust_transfer.configuration.weights import torchvision_weights
from robust_transfer.networks import backbones
from robust_transfer.networks.backbones import load_backbone, save_weights
from robust_transfer.networks.build import IMAGENET_MEAN, IMAGENET_STD, Network, build, fresh_head
from robust_transfer.networks.folding import Folded
from robust_transfer.networks.fusing import FusedConvolution, fuse
from robust_transfer.networks.image_gradient import FirstConvolution, supported
from robust_transfer.networks.layers import layers
from robust_transfer.store.entry import StoreError, sha256, write_json
from support.backbones import stored_backbone
from support.processes import output
from torch import fx, nn


def images(n=4, side=32, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def with_statistics(network, seed=0):
    """BatchNorm as after some training: statistics, scales and shifts that do something."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.7, 1.4),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.2),
            ):
                tensor.detach().uniform_(low, high, generator=generator)
    return network


class TestNames:
    def test_the_catalogue_is_what_torchvision_has_with_a_linear_head(self):
        models = pytest.importorskip("torchvision.models")
        offered = {name for name in models.list_models(module=models) if not name.startswith("squeezenet")}
        assert {*CATALOGUE} == offered | {"wide_resnet50_4", *CIFAR_RESNETS}
        assert offered >= {name.removesuffix("_cifar") for name in CIFAR_RESNETS}

    def test_names_of_weights_are_those_of_torchvisions_enumerations(self):
        models = pytest.importorskip("torchvision.models")
        of = {name: tuple(models.get_model_weights(name).__members__) for name in models.list_models(module=models)}
        assert torchvision_weights() == of
        assert len(of["vit_b_16"]) == 4  # three, and the one that is the default

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("resnet19", "resnet19: no such architecture; did you mean resnet18"),
            ("wide_resnet50", "did you mean wide_resnet50_"),
            (
                "resnet9_w16",
                "a small ResNet has 6n + 2 layers (8, 14, 20, …); did you mean resnet8_w16 or resnet14_w16?",
            ),
            ("resnet2_w16", "did you mean resnet8_w16 or resnet14_w16?"),
            ("resnet8_w0", "a width is at least 1; did you mean resnet8_w16?"),
            ("squeezenet1_0", "no such architecture"),
            (
                "zzz",
                "There are small ResNets by depth 6n + 2 and width (resnet8_w16, resnet20_w32, …), Wide ResNets by",
            ),
        ],
    )
    def test_another_name_is_refused_with_what_to_write(self, name, says):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            build(name, 10)
        assert says in str(error.value)
        assert name in str(error.value)

    def test_what_is_in_the_catalogue_passes(self):
        for name in (*CATALOGUE, "resnet8_w16", "resnet56_w4"):
            check_architecture(name)


class TestTimm:
    @pytest.fixture(autouse=True)
    def timm(self):
        return pytest.importorskip("timm", reason="not installed: make setup EXTRAS=timm")

    def test_the_names_are_what_timm_lists(self, timm):
        names = timm_catalogue()
        assert {name for name in names if "." not in name} == {*timm.list_models()}
        for name in ("timm_resnet10t", "timm_resnet10t.c3_in1k"):
            check_architecture(name)

    def test_another_name_is_refused_with_near_ones(self):
        with pytest.raises(ValueError, match=r"timm_resnet10x: timm has no network resnet10x; did you mean timm_resne"):
            check_architecture("timm_resnet10x")

    def test_without_timm_the_message_says_how_to_get_it(self, monkeypatch):
        monkeypatch.setattr("robust_transfer.architectures.timm_catalogue", lambda: ())
        with pytest.raises(ValueError, match=r"timm_resnet10t: .* not installed: run `make setup EXTRAS=timm`"):
            check_architecture("timm_resnet10t")

    # A convolutional network; one whose features are wider than its last map; one built for the size of its input.
    @pytest.mark.parametrize("name", ["timm_test_resnet", "timm_mobilenetv3_small_050", "timm_test_vit"])
    def test_is_built_without_its_head_and_depends_on_the_seed_alone(self, name):
        one, same, other = (build(name, 7, seed=seed, input_size=32).eval() for seed in (1, 1, 2))
        with torch.no_grad():
            assert one.features(images(2)).shape == (2, one.head.in_features)
            assert torch.equal(one(images(2)), same(images(2)))
            assert not torch.equal(one(images(2)), other(images(2)))

    def test_is_loaded_as_it_was_saved(self, tmp_path):
        network = build("timm_test_vit", 3, seed=1, input_size=32).eval()
        entry = stored_backbone(tmp_path, network, input_size=32, classes=["a", "b", "c"])
        with torch.no_grad():
            assert torch.equal(load_backbone(entry)(images()), network(images()))

    # Plain convolutions; convolutions that are padded by the size of their input; one that torch.fx cannot trace.
    @pytest.mark.parametrize("name", ["timm_test_resnet", "timm_tf_mobilenetv3_small_minimal_100", "timm_test_vit"])
    def test_folded_it_has_the_networks_gradient(self, name, caplog):
        caplog.set_level("INFO", "robust_transfer")
        network = with_statistics(build(name, 5, input_size=32)).double().eval()
        x = images(2).double().requires_grad_(True)
        expected, actual = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (network, Folded(network).eval()))
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
        assert ("timm_test_vit: attacked as it is" in caplog.text) == (name == "timm_test_vit")


class TestBuild:
    @pytest.mark.parametrize(
        ("name", "classes", "parameters"),
        [
            # Convolutions and BatchNorm: stem, then blocks of two 3×3, the 1×1 shortcuts, the head; counted by hand.
            ("resnet8_w16", 10, 432 + 32 + 4672 + 14528 + 57728 + 650),
            # He et al. (2016), Table 6, say 0.27M for ResNet-20 and 0.85M for ResNet-56; theirs have free shortcuts, of
            # which ours are 16·32 + 64 and 32·64 + 128.
            ("resnet20_w16", 10, 269_722 + 576 + 2176),
            ("resnet56_w16", 10, 853_018 + 576 + 2176),
            ("resnet18", 1000, 11_689_512),
            ("resnet50", 1000, 25_557_032),
            ("resnet18_cifar", 10, 11_173_962),  # as github.com/kuangliu/pytorch-cifar and its descendants count
            ("resnet50_cifar", 10, 23_520_842),
        ],
    )
    def test_parameter_counts(self, name, classes, parameters):
        assert build(name, classes).parameters_n == parameters

    # Parameters with ImageNet's 1,000 classes, as torchvision's documentation has them (of wide_resnet50_4, which it
    # lacks: as the ResNet formula gives them), and how wide the features are.
    PAPERS = (
        ("resnet18", 11_689_512, 512),
        ("resnet50", 25_557_032, 2048),
        ("wide_resnet50_2", 68_883_240, 2048),
        ("wide_resnet50_4", 223_439_144, 2048),
        ("densenet161", 28_681_000, 2208),
        ("mnasnet1_0", 4_383_312, 1280),
        ("mobilenet_v2", 3_504_872, 1280),
        ("resnext50_32x4d", 25_028_904, 2048),
        ("shufflenet_v2_x1_0", 2_278_604, 1024),
        ("vgg16_bn", 138_365_992, 4096),
    )

    @pytest.mark.parametrize(("name", "parameters", "dimension"), PAPERS, ids=[name for name, *_ in PAPERS])
    def test_the_papers_architectures(self, name, parameters, dimension):
        pytest.importorskip("torchvision")
        with torch.device("meta"):  # shapes alone
            network = build(name, 1000).eval()
            assert network.parameters_n == parameters
            for side in (32, 64, 224, 229):  # VGG too, whose dense layers see a map of 7 × 7 whatever the image's side
                assert network.features(torch.empty(2, 3, side, side)).shape == (2, dimension)
            network.head = fresh_head(dimension, 37, seed=0).to("meta")
            assert network(torch.empty(2, 3, 64, 64)).shape == (2, 37)
            assert network.parameters_n == parameters - (dimension + 1) * (1000 - 37)
        inner = layers(network, 64)
        assert len(inner) > 10
        assert all(layer.dimension > 0 for layer in inner.values())

    def test_a_cifar_resnet_keeps_the_map_that_imagenets_stem_would_take_away(self):
        with torch.device("meta"):
            maps = {}
            for name in ("resnet18", "resnet18_cifar"):
                network = build(name, 10)
                network.body.get_submodule("layer4").register_forward_hook(
                    lambda module, inputs, output, name=name: maps.update({name: output.shape[2:]})
                )
                network(torch.empty(2, 3, 32, 32))
        assert maps == {"resnet18": (1, 1), "resnet18_cifar": (4, 4)}

    def test_a_cifar_stem_is_initialised_as_the_other_convolutions_are(self):
        stem, again = (build("resnet18_cifar", 10, seed=1).body.state_dict()["conv1.weight"] for _ in range(2))
        assert float(stem.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)  # He et al. (2015), by fan-out
        assert torch.equal(stem, again)

    def test_wide_resnet50_4_has_twice_the_inner_width_of_wide_resnet50_2(self):
        torchvision = pytest.importorskip("torchvision")
        with torch.device("meta"):  # 223 million parameters, none of them allocated
            ours, theirs = build("wide_resnet50_4", 1000), torchvision.models.wide_resnet50_2()
        assert ours.body.get_submodule("layer1.0.conv2").out_channels == 2 * theirs.layer1[0].conv2.out_channels == 256
        assert ours.head.in_features == theirs.fc.in_features == 2048
        assert ours.parameters_n == pytest.approx(223.4e6, rel=1e-3)

    @pytest.mark.parametrize(
        "name",
        ["resnet18", "resnext50_32x4d", "densenet121", "mobilenet_v2", "mnasnet0_5", "shufflenet_v2_x0_5", "vgg11_bn"],
    )
    def test_the_head_is_torchvisions_last_layer_and_features_are_its_input(self, name):
        torchvision = pytest.importorskip("torchvision")
        ours = build(name, 7, seed=3).eval()
        theirs = torchvision.models.get_model(name, weights=None, num_classes=7).eval()
        last = [layer for layer in theirs.modules() if isinstance(layer, nn.Linear)][-1]
        state = ours.body.state_dict() | _prefixed(theirs, last, ours.head.state_dict())
        for name, tensor in theirs.state_dict().items():
            tensor.copy_(state.pop(name))
        assert not state
        x = images(2)
        normalised = (x - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
        seen = []
        last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        with torch.no_grad():
            torch.testing.assert_close(ours(x), theirs(normalised), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(ours.features(x), seen[0], rtol=1e-4, atol=1e-5)

    def test_weights_depend_on_the_seed_alone(self):
        torch.manual_seed(5)
        state = torch.get_rng_state()
        one, two, other = build("resnet8_w4", 3, seed=1), build("resnet8_w4", 3, seed=1), build("resnet8_w4", 3, seed=2)
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        assert not torch.equal(one.head.weight, other.head.weight)
        assert not torch.equal(*(network.body.get_parameter("stem.0.weight") for network in (one, other)))

    def test_a_replaced_head_is_fresh_and_the_body_stays(self):
        network = build("resnet8_w4", 3).double().eval()
        before = {name: value.clone() for name, value in network.body.state_dict().items()}
        network.replace_head(5, seed=1)
        first = network.head.weight.detach().clone()
        network.replace_head(5, seed=2)
        assert network.classes == 5
        assert network(images().double()).shape == (4, 5)
        assert not torch.equal(network.head.weight, first)
        assert first.abs().max() <= 16**-0.5  # nn.Linear's own initialisation, of 16 features
        assert all(torch.equal(value, before[name]) for name, value in network.body.state_dict().items())

    def test_images_of_any_side_fit(self):
        network = build("resnet8_w4", 3)
        assert network.features(images(2, 32)).shape == network.features(images(2, 48)).shape == (2, 16)


def _prefixed(network, layer, state):
    path = next(path for path, module in network.named_modules() if module is layer)
    return {f"{path}.{name}": value for name, value in state.items()}


def test_narrow_networks_survive_odd_batches_on_two_threads():
    """oneDNN's gradient of strided 1×1 convolutions used to write outside its memory; see Subsampling."""
    code = """
        import torch
        from robust_transfer.networks.build import build
        torch.set_num_threads(2)
        for width, side in ((4, 16), (8, 32), (12, 32)):
            network = build(f"resnet8_w{width}", 3).to(memory_format=torch.channels_last)
            for batch in (3, 5, 7, 11, 13):
                for _ in range(4):
                    images = torch.rand(batch, 3, side, side).to(memory_format=torch.channels_last)
                    network(images).square().sum().backward()
        print("alive")
    """
    assert output(code, timeout=300) == "alive\n"


class TestFolded:
    @pytest.mark.parametrize("name", ["resnet8_w4", "resnet14_w4", "mobilenet_v2", "densenet121", "googlenet"])
    def test_is_the_network_in_eval_mode_and_follows_its_weights(self, name):
        network = with_statistics(build(name, 5)).double()
        network.train()
        folded = Folded(network)
        assert all(module.training for module in network.modules())
        network.eval(), folded.eval()
        x = images(2).double()
        with torch.no_grad():
            torch.testing.assert_close(folded(x), network(x), rtol=1e-9, atol=1e-9)
            for parameter in network.parameters():
                parameter.mul_(1.1)
            with_statistics(network, seed=1)
            stale = (folded(x) - network(x)).abs().max()
            folded.refresh()
            torch.testing.assert_close(folded(x), network(x), rtol=1e-9, atol=1e-9)
        assert stale > 1e-3

    def test_has_the_networks_gradient(self):
        network = with_statistics(build("resnet8_w4", 5)).double().eval()
        x = images(2).double().requires_grad_(True)
        expected, actual = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (network, Folded(network)))
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)

    def test_weights_are_kept_in_the_precision_of_autocast_to_the_same_bits(self):
        network, x = with_statistics(build("resnet8_w4", 5)).eval(), images(2)
        folded = Folded(network)
        weights = [layer.weight for layer in folded.modules() if isinstance(layer, nn.Conv2d)]
        kept = [weight.clone() for weight in weights]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            cast_at_the_call = folded(x)
            folded.refresh()
            assert torch.equal(folded(x), cast_at_the_call)
        assert {weight.dtype for weight in weights} == {torch.bfloat16}
        folded.refresh()
        assert all(torch.equal(weight, before) for weight, before in zip(weights, kept, strict=True))

    def test_takes_over_a_convolutions_own_bias(self):
        """As in VGGs with BatchNorm; the second convolution has two readers, so its BatchNorm stays."""

        class Body(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
                self.norm_one, self.norm_two = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

            def forward(self, x):
                x = self.two(self.norm_one(self.one(x)).relu())
                return (x + self.norm_two(x).relu()).mean((2, 3))

        network = with_statistics(Network("own", Body(), 4, 5)).double().eval()
        folded = Folded(network)
        assert [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)] == [network.body.norm_two]
        x = images().double()
        torch.testing.assert_close(folded(x), network(x), rtol=1e-9, atol=1e-9)

    def test_a_convolution_of_another_kind_is_not_folded(self):
        """One that pads by the size of its input, as some of timm's do, which stride and padding say nothing of."""

        class Same(nn.Conv2d):
            def forward(self, x):
                return super().forward(nn.functional.pad(x, (1, 2, 1, 2)))

        body = nn.Sequential(Same(3, 4, 5, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        network = with_statistics(Network("own", body, 4, 5)).double().eval()
        x = images(2).double().requires_grad_(True)
        expected, actual = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (network, Folded(network).eval()))
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)

    def test_leaves_no_batchnorm_after_a_convolution(self):
        folded = Folded(build("resnet8_w4", 5))
        assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())

    def test_a_network_without_batchnorm_is_left_alone(self):
        network = build("convnext_tiny", 5).eval()
        x = images(1)
        with torch.no_grad():
            assert torch.equal(Folded(network).eval()(x), network(x))


class TestFusing:
    """On a GPU cuDNN computes what is fused at once; here its parts are computed one after the other."""

    @pytest.mark.parametrize(
        ("architecture", "fused"),
        [
            ("resnet8_w4", 6),
            ("resnet18", 16),
            ("resnet50", 48),
            ("googlenet", 56),
            ("densenet121", 58),
            ("convnext_tiny", 0),
        ],
    )
    def test_is_the_same_function(self, architecture, fused):
        network = with_statistics(build(architecture, 5).eval())
        plain, together = Folded(network).eval(), Folded(network).eval()
        if isinstance(together.body, fx.GraphModule):
            fuse(together.body)
        assert sum(isinstance(module, FusedConvolution) for module in together.modules()) == fused
        x = images(1).requires_grad_(True)
        expected, actual = plain(x), together(x)
        assert torch.equal(actual, expected)
        gradients = [torch.autograd.grad(logits.sum(), x)[0] for logits in (expected, actual)]
        torch.testing.assert_close(*gradients)

    def test_leaves_what_has_other_uses(self):
        class Body(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

            def forward(self, x):
                y = self.bn(self.conv(x))
                return torch.relu(y) - y, torch.relu(y + 1), torch.relu(x + x)

        body = fx.symbolic_trace(Body().eval())
        fuse(body)
        assert not [module for module in body.modules() if isinstance(module, FusedConvolution)]


class TestImageGradient:
    @pytest.mark.parametrize(
        ("kernel", "stride", "padding", "side"),
        [
            (3, 1, 1, 9),
            (7, 2, 3, 14),
            (3, 2, 1, 8),
            (4, 4, 0, 16),
            (5, 1, 0, 9),
            (1, 2, 0, 8),
            (3, 3, 1, 12),
            (11, 4, 2, 32),
        ],
    )
    def test_is_the_convolutions(self, kernel, stride, padding, side):
        torch.manual_seed(0)
        convolution = nn.Conv2d(3, 5, kernel, stride, padding).double()
        assert supported(convolution)
        first = FirstConvolution(convolution)
        with torch.no_grad():
            convolution.weight.mul_(2)
        first.refresh()
        for width in (side, side + stride, side + 1):  # the last is not a multiple of the stride
            x = torch.rand(2, 3, side, width, dtype=torch.float64, requires_grad=True)
            y = convolution(x)
            given = torch.rand_like(y)
            expected, actual = (torch.autograd.grad(f(x), x, given)[0] for f in (convolution, first))
            torch.testing.assert_close(first(x), y)
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
    @pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7, 9, 11])
    def test_is_autograds_for_every_stem_and_size(self, kernel, stride):
        torch.manual_seed(0)
        for padding in range(kernel + 2):
            convolution = nn.Conv2d(3, 2, kernel, stride, padding, bias=False).double()
            first = FirstConvolution(convolution)
            for height in range(max(kernel - 2 * padding, 1), kernel + 2 * stride + 2):
                x = torch.rand(1, 3, height, height + stride, dtype=torch.float64, requires_grad=True)
                given = torch.rand_like(y := convolution(x))
                expected, actual = (torch.autograd.grad(f(x), x, given)[0] for f in (convolution, first))
                stem = f"{kernel}/{stride}/{padding} on {tuple(x.shape)}"
                assert torch.allclose(actual, expected, rtol=1e-12, atol=1e-12), stem
                assert torch.equal(first(x), y), stem

    @pytest.mark.parametrize("relu", [False, True])
    @pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 2, 3), (3, 2, 1), (4, 4, 0), (5, 1, 2), (9, 2, 1)])
    def test_by_blocks_it_is_the_same_convolution(self, kernel, stride, padding, relu):
        """As on a GPU; the last stem has fewer outputs than blocks, and is computed as it is."""
        torch.manual_seed(0)
        convolution = nn.Conv2d(3, 5, kernel, stride, padding).double()
        first = FirstConvolution(convolution, by_blocks=True)
        first.relu = relu
        memory = first.onward.data_ptr(), first.transposed.data_ptr()
        with torch.no_grad():
            convolution.weight.mul_(2)
        first.refresh()
        assert (first.onward.data_ptr(), first.transposed.data_ptr()) == memory  # recorded kernels read it there
        side = 4 * stride + kernel - kernel % stride
        for width in (side, side + stride, side + 1):
            x = torch.rand(2, 3, side, width, dtype=torch.float64, requires_grad=True)
            y = convolution(x).relu() if relu else convolution(x)
            given = torch.rand_like(y)
            (expected,) = torch.autograd.grad(y, x, given)
            (actual,) = torch.autograd.grad(first(x), x, given)
            torch.testing.assert_close(first(x), y)
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize(
        "convolution",
        [
            nn.Conv2d(3, 6, 3, dilation=2),
            nn.Conv2d(3, 6, 3, groups=3),
            nn.Conv2d(3, 6, 3, padding="same"),
            nn.Conv2d(3, 6, (3, 5)),
            nn.Conv2d(3, 6, 3, stride=(1, 2)),
            nn.Conv2d(3, 6, 3, padding=(0, 1)),
            nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"),
            nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"),
            type("PaddedByItself", (nn.Conv2d,), {})(3, 6, 3),
        ],
        ids=str,
    )
    def test_refuses_what_it_does_not_compute(self, convolution):
        assert not supported(convolution)
        with pytest.raises(ValueError, match="FirstConvolution"):
            FirstConvolution(convolution)

    def test_serves_the_first_convolution_alone_and_only_where_it_can(self):
        assert sum(isinstance(module, FirstConvolution) for module in Folded(build("resnet18", 5)).modules()) == 1
        assert not supported(nn.Conv2d(16, 16, 3))
        assert not supported(nn.Conv2d(3, 16, 3, dilation=2))
        assert not supported(nn.Conv2d(3, 16, 3, padding="same"))
        assert not supported(nn.Conv2d(3, 3, 3, groups=3))
        assert not supported(nn.Conv2d(3, 16, (3, 5)))


@pytest.fixture
def backbone(tmp_path):
    """A finished pretraining entry of an untrained network."""
    network = with_statistics(build("resnet8_w4", 3, seed=1))
    entry = stored_backbone(tmp_path, network, input_size=32, classes=["a", "b", "c"])
    return entry, network, entry.facts()


class TestBackbones:
    def test_loads_what_was_saved_bit_for_bit_in_eval_mode(self, backbone):
        entry, network, _ = backbone
        loaded = load_backbone(entry)
        assert not loaded.training
        for name, value in network.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value), name

    @pytest.mark.parametrize("name", ["mnasnet0_5", "resnet18"])
    def test_torchvisions_networks_are_loaded_as_they_were_saved(self, name, tmp_path):
        network = with_statistics(build(name, 3, seed=1))
        loaded = load_backbone(stored_backbone(tmp_path, network, input_size=32)).state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())

    def test_equal_weights_are_equal_files(self, backbone, tmp_path):
        _, network, facts = backbone
        network.to(memory_format=torch.channels_last)
        for number in range(3):
            save_weights(tmp_path / f"{number}", network, dict(reversed(facts.items())) if number else facts)
        assert len({sha256(tmp_path / f"{number}") for number in range(3)}) == 1

    def test_an_altered_file_is_refused(self, backbone):
        entry, _, _ = backbone
        path = entry.path / "weights.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(StoreError, match=r"weights\.safetensors.*altered"):
            load_backbone(entry)

    def test_another_architecture_is_named_with_the_shapes_that_differ(self, backbone):
        entry, network, facts = backbone
        self._overwrite(entry, network, facts | {"architecture": "resnet8_w8"})
        with pytest.raises(
            StoreError, match=r"body.blocks.0.bn1.bias is float32 \[4\] where resnet8_w8 has float32 \[8\]"
        ):
            load_backbone(entry)

    def test_a_missing_tensor_is_named(self, backbone):
        entry, network, facts = backbone
        del network.body.blocks[2]
        self._overwrite(entry, network, facts)
        with pytest.raises(StoreError, match=r"blocks.2.bn1.bias is missing where resnet8_w4 has .* and \d+ more"):
            load_backbone(entry)

    def test_other_classes_than_the_cards_are_named(self, backbone):
        entry, _, _ = backbone
        card = entry.card()
        card["facts"]["classes"] = ["a", "b", "d"]
        write_json(entry.path / "card.json", card)
        with pytest.raises(StoreError, match="classes 3 names: a, b, c where the card says 3 names: a, b, d"):
            load_backbone(entry)

    @pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x00" * 64])
    def test_a_file_of_another_kind_is_refused(self, content, tmp_path):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(StoreError, match="not a readable safetensors file"):
            backbones.read_weights(tmp_path / "x")

    def test_safetensors_of_another_origin_are_refused(self, tmp_path):
        from safetensors.torch import save_file

        save_file({"weight": torch.zeros(2)}, tmp_path / "x")
        with pytest.raises(StoreError, match="not written by this software"):
            backbones.read_weights(tmp_path / "x")

    def _overwrite(self, entry, network, facts):
        """Put another file in the entry's place, with a card that fits it."""
        shutil.rmtree(entry.path / ".draft", ignore_errors=True)
        with entry.writing() as draft:
            save_weights(draft.file("weights.safetensors"), network, facts)
            draft.facts = json.loads(json.dumps(facts))
