"""AdaIN: the published networks' layout, statistics that follow the style, and files that are no such networks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from robust_transfer.stylization.adain import DECODER, ENCODED, ENCODER, StyleTransfer, adapted, decoder_of, encoder_of
from robust_transfer.stylization.adain import load_style_transfer as load
from robust_transfer.weights.pickle_values import CheckpointError
from support.prepared_datasets import pixels
from support.style_networks import small_networks, write_networks
from torch import nn

# (out, in) channels of vgg_normalised.pth and decoder.pth, as published
VGG = {0: (3, 3), 2: (64, 3), 5: (64, 64), 9: (128, 64), 12: (128, 128), 16: (256, 128), 19: (256, 256)}
VGG |= {22: (256, 256), 25: (256, 256), 29: (512, 256), **dict.fromkeys((32, 35, 38, 42, 45, 48, 51), (512, 512))}
BACK = {1: (256, 512), 5: (256, 256), 8: (256, 256), 11: (256, 256), 14: (128, 256), 18: (128, 128), 21: (64, 128)}
BACK |= {25: (64, 64), 28: (3, 64)}


def images(n: int = 3, side: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.stack([pixels(side, side, seed=seed + i) for i in range(n)]))


@pytest.fixture
def transfer(tmp_path: Path) -> StyleTransfer:
    return load(*write_networks(tmp_path))


def kinds(network: nn.Sequential, kind: type[nn.Module]) -> list[int]:
    return [i for i, layer in enumerate(network) if isinstance(layer, kind)]


def test_the_networks_of_full_size_are_the_published_ones() -> None:
    encoder, decoder = encoder_of(VGG), decoder_of(BACK)
    assert (len(encoder), sum(one.numel() for one in encoder.parameters())) == (53, 20_024_396)
    assert (len(decoder), sum(one.numel() for one in decoder.parameters())) == (29, 3_505_219)
    assert kinds(encoder, nn.Conv2d) == list(ENCODER) == sorted(VGG)
    assert kinds(encoder, nn.MaxPool2d) == [7, 14, 27, 40]
    assert kinds(encoder, nn.ReLU) == [3, 6, 10, 13, 17, 20, 23, 26, 30, 33, 36, 39, 43, 46, 49, 52]
    assert kinds(decoder, nn.Conv2d) == list(DECODER) == sorted(BACK)
    assert kinds(decoder, nn.Upsample) == [3, 16, 23]
    assert kinds(decoder, nn.ReLU) == [2, 6, 9, 12, 15, 19, 22, 26]
    assert all(isinstance(encoder[i - 1], nn.ReflectionPad2d) for i in ENCODER[1:])
    assert encoder[0].kernel_size == (1, 1)
    assert encoder[7].ceil_mode


def test_full_networks_stylize_one_small_image(tmp_path: Path) -> None:
    """Random weights: what is looked at is that 31 of the 53 modules encode, and sizes."""
    files = tmp_path / "vgg_normalised.pth", tmp_path / "decoder.pth"
    for path, network in zip(files, (encoder_of(VGG), decoder_of(BACK)), strict=True):
        torch.save(network.state_dict(), path)
    transfer = load(*files)
    assert len(transfer.encoder) == ENCODED == 31
    with torch.inference_mode():
        assert transfer.encoder(torch.zeros(1, 3, 36, 24)).shape == (1, 512, 5, 3)  # pooling rounds up
    assert transfer(images(1, 36), images(1, 36, seed=5)).shape == (1, 36, 36, 3)


def test_codes_get_the_mean_and_the_variance_of_the_style(transfer: StyleTransfer) -> None:
    content, style = (
        transfer.encoder(images(seed=seed).permute(0, 3, 1, 2).float() / 255).detach() for seed in (0, 10)
    )
    found, wanted = (torch.var_mean(code, dim=(2, 3), correction=1) for code in (adapted(content, style), style))
    torch.testing.assert_close(found[1], wanted[1], atol=1e-4, rtol=1e-4)
    varied = torch.var(content, dim=(2, 3)) > 0.01  # what has no variance cannot be given one
    assert varied.float().mean() > 0.5
    torch.testing.assert_close(found[0][varied], wanted[0][varied], atol=1e-4, rtol=5e-3)


def test_statistics_are_unbiased_with_a_small_number_added() -> None:
    code = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    other = torch.tensor([[[[0.0, 0.0], [0.0, 4.0]]]])
    variances = [torch.var(one, correction=1) + 1e-5 for one in (code, other)]
    expected = (code - 3) / variances[0].sqrt() * variances[1].sqrt() + 1
    torch.testing.assert_close(adapted(code, other), expected)


def test_alpha_0_gives_what_the_decoder_makes_of_the_image(tmp_path: Path) -> None:
    plain = load(*write_networks(tmp_path), alpha=0)
    content = images()
    with torch.inference_mode():
        decoded = plain.decoder(plain.encoder(content.permute(0, 3, 1, 2).float() / 255))
    expected = (255 * decoded.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1)
    for seed in (20, 30):
        torch.testing.assert_close(plain(content, images(seed=seed)), expected, atol=0, rtol=0)
    whole, half = (load(*write_networks(tmp_path), alpha=alpha)(content, images(seed=20)) for alpha in (1, 0.5))
    assert (whole != expected).any()
    assert (half != expected).any()
    assert (half != whole).any()


@pytest.mark.parametrize("side", [16, 23, 36])
def test_images_keep_their_size(transfer: StyleTransfer, side: int) -> None:
    made = transfer(images(2, side), images(2, side, seed=4))
    assert (made.shape, made.dtype) == ((2, side, side, 3), torch.uint8)


class TestFiles:
    """Files that are no encoder and decoder of one pair."""

    def write(self, path: Path, state: dict[str, Any]) -> Path:
        torch.save(state, path)
        return path

    def test_a_decoder_of_another_width(self, tmp_path: Path) -> None:
        encoder, _ = write_networks(tmp_path)
        decoder = self.write(tmp_path / "other.pth", small_networks(width=12)[1].state_dict())
        with pytest.raises(CheckpointError, match=r"other.pth: decodes 12 channels, where .*vgg_normalised.pth.* 8"):
            load(encoder, decoder)

    def test_one_in_the_place_of_the_other(self, tmp_path: Path) -> None:
        encoder, decoder = write_networks(tmp_path)
        with pytest.raises(CheckpointError, match=r"decoder.pth: 1.weight is unexpected; .*i = 0, 2, 5, 9"):
            load(decoder, encoder)

    def test_a_layer_is_missing(self, tmp_path: Path) -> None:
        encoder, decoder = write_networks(tmp_path)
        state = small_networks()[1].state_dict()
        del state["21.bias"]
        with pytest.raises(CheckpointError, match=r"21.bias is missing"):
            load(encoder, self.write(decoder, state))

    def test_layers_that_do_not_follow_each_other(self, tmp_path: Path) -> None:
        encoder, decoder = write_networks(tmp_path)
        state = small_networks()[0].state_dict()
        state["9.weight"] = torch.zeros(8, 5, 3, 3)
        with pytest.raises(CheckpointError, match=r"9.weight takes 5 channels, and 5.weight gives 8"):
            load(self.write(encoder, state), decoder)

    def test_another_kernel(self, tmp_path: Path) -> None:
        encoder, decoder = write_networks(tmp_path)
        state = small_networks()[0].state_dict()
        state["2.weight"] = torch.zeros(8, 3, 5, 5)
        with pytest.raises(CheckpointError, match=r"2.weight is \[8, 3, 5, 5\]; expected is \[out, in, 3, 3\]"):
            load(self.write(encoder, state), decoder)

    def test_no_checkpoint_at_all(self, tmp_path: Path) -> None:
        encoder, decoder = write_networks(tmp_path)
        encoder.write_text("<html>Not found</html>")
        with pytest.raises(CheckpointError, match=r"vgg_normalised.pth"):
            load(encoder, decoder)

    def test_what_follows_the_encoder_may_be_left_out(self, tmp_path: Path) -> None:
        encoder, decoder = write_networks(tmp_path)
        state = {
            name: value for name, value in small_networks()[0].state_dict().items() if int(name.split(".")[0]) < 31
        }
        load(self.write(encoder, state), decoder)
