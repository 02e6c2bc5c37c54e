"""Amplitude–phase recombination: whose amplitude, whose phase, and what a label can be read from afterwards."""

import numpy as np
import torch
from robust_transfer.stylization.phase import recombined

SIDE = 16


def soft(n: int, seed: int) -> torch.Tensor:
    """Images of so little contrast that no recombination leaves the range of pixels: uint8 [n, SIDE, SIDE, 3]."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(118, 138, (n, SIDE, SIDE, 3)).astype(np.uint8))


def spectrum(images: torch.Tensor) -> np.ndarray:
    found: np.ndarray = np.fft.fft2(images.numpy().astype(float), axes=(1, 2))
    return found


def test_the_phase_is_the_images_and_the_amplitude_the_styles() -> None:
    content, style = soft(8, seed=0), soft(8, seed=1)
    made, rounding = spectrum(recombined(content, style)), np.sqrt(SIDE**2 / 12)  # its standard deviation
    np.testing.assert_allclose(np.abs(made), np.abs(spectrum(style)), atol=5 * rounding)
    strong = np.abs(made) > 15 * rounding
    assert strong.mean() > 0.2
    difference = np.angle(made / spectrum(content))[strong]
    assert np.abs(difference).max() < 5 / 15


def test_an_image_in_its_own_style_is_itself() -> None:
    images = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (4, SIDE, SIDE, 3)).astype(np.uint8))
    torch.testing.assert_close(recombined(images, images), images)


def test_pixels_do_not_depend_on_the_batch_and_odd_sides_stay() -> None:
    content, style = soft(9, seed=3)[:, :15, :15], soft(9, seed=4)[:, :15, :15]
    whole = recombined(content, style)
    assert whole.shape == content.shape
    parts = [recombined(content[i : i + 2], style[i : i + 2]) for i in range(0, 9, 2)]
    torch.testing.assert_close(whole, torch.cat(parts), rtol=0, atol=0)


class TestLabels:
    """A disc on the left or on the right is the shape; stripes, horizontal or vertical, are the texture of its class.

    A linear probe reads the shape from pixels, or the texture from amplitudes, where position is lost.
    """

    N = 600

    def images(self, seed: int) -> tuple[torch.Tensor, np.ndarray]:
        random = np.random.default_rng(seed)
        labels = np.arange(self.N) % 2
        y, x = np.mgrid[:SIDE, :SIDE]
        centre = np.where(labels, 11, 4)[:, None, None] + random.uniform(-1, 1, (self.N, 1, 1))
        discs = (x - centre) ** 2 + (y - 7.5 + random.uniform(-2, 2, (self.N, 1, 1))) ** 2 < 16
        phase = random.uniform(0, 2 * np.pi, (self.N, 1, 1))
        stripes = np.sin(np.where(labels[:, None, None], x, y) * 2.2 + phase)
        grey = 128 + 50 * (discs - 0.5) + 25 * stripes + random.normal(0, 6, (self.N, SIDE, SIDE))
        return torch.from_numpy(np.clip(grey[..., None].repeat(3, 3), 0, 255).astype(np.uint8)), labels

    def accuracy(self, rows: np.ndarray, labels: np.ndarray) -> float:
        """Of ridge regression, fitted on half of the images and tested on the others."""
        rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-9)
        train, test = slice(0, self.N // 2), slice(self.N // 2, None)
        gram = rows[train].T @ rows[train] + self.N * np.eye(rows.shape[1])
        weights = np.linalg.solve(gram, rows[train].T @ (2 * labels[train] - 1))
        return float((((rows[test] @ weights) > 0) == labels[test]).mean())

    def probes(self, images: torch.Tensor, labels: np.ndarray) -> tuple[float, float]:
        """Accuracies by shape and by texture."""
        grey = images[..., 0].numpy().astype(float)
        amplitudes = np.abs(np.fft.rfft2(grey - grey.mean((1, 2), keepdims=True)))
        return self.accuracy(grey.reshape(self.N, -1), labels), self.accuracy(amplitudes.reshape(self.N, -1), labels)

    def test_both_cues_are_there_before_and_the_shape_alone_afterwards(self) -> None:
        images, labels = self.images(seed=0)
        assert min(self.probes(images, labels)) > 0.95
        styles = images[torch.from_numpy(np.random.default_rng(1).permutation(self.N))]
        shape, texture = self.probes(recombined(images, styles), labels)
        assert shape > 0.9
        assert abs(texture - 0.5) < 0.1  # 3 standard errors of 300 images are 0.09
