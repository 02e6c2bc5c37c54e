"""Images as a dataset stores them: upright, RGB or grey, 8 bits per channel, perhaps downscaled.

The original file is stored where it is all that already. Transparent images are composited on white, as web pages show
them. CMYK is converted without its colour profile, as Pillow does it. 16-bit grey is scaled from 0..65535 to 0..255,
rounded to nearest. Of an animation the first frame is kept. EXIF orientation is applied if the dataset says so; TIFF
orientation always is, by Pillow.

Images that are changed are stored losslessly. Small ones as binary PPM, which is bare pixels: read in 30 µs at 12 × 16
and 50 µs at 64 × 83, where PNG takes 40 and 190, WebP 90 and 250. Larger ones as WebP: 25 % smaller than PNG, and
faster to write and read (128 × 180: 0.9 and 0.5 ms, PNG 2 and 0.8 ms; one core of a Xeon, Pillow 13). PNG is used
above WebP's limit of 16383 px.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from robust_transfer.datasets.arrow import Images
from robust_transfer.datasets.resident import resized_shape

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "JPEG2000", "AVIF")
_NOT_READ = {b"ftyphei": "HEIC", b"ftyphev": "HEIC", b"ftypmif1": "HEIF", b"ftypmsf1": "HEIF", b"JXL ": "JPEG XL"}
"""What formats that Pillow does not read have in their first bytes."""
PIXEL_LIMIT = 89_478_485  # Pillow's own: 256 MiB of RGB. Larger images count as decompression bombs
SMALL_PIXELS = 64 * 128  # up to this, PPM is faster to read than PNG and WebP; see above
WEBP_SIDE = 16383  # pixels; the format holds no more

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# The first is raised as an error of that image below; the others, mostly of broken EXIF data, do not spoil an image.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class UnreadableImage(ValueError):  # noqa: N818, it is the image that is meant
    """One image cannot be read; the message says why, and its caller knows its name."""


ImageSource = bytes | Path | Image.Image | UnreadableImage
"""An image of an origin: an encoded file, its path, decoded pixels, or the reason why there is none."""


def to_store(
    source: ImageSource, *, side: int | None, exif_rotation: bool, raw: bool, enlarge: bool = False
) -> tuple[bytes | Images, int, int]:
    """The image to store (uint8 RGB [height, width, 3] if `raw`, else an encoded file), its height and width.

    A short side above `side` pixels is downscaled to it by antialiased bilinear interpolation; a smaller one is
    enlarged to it where `enlarge` says so. The encoded file is the original one where nothing is changed. Raises
    UnreadableImage.
    """
    image, original = _load(source, exif_rotation)
    size = stored_size(image.height, image.width, side, enlarge=enlarge)
    if size != (image.height, image.width):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        original = None
    if raw:
        return np.array(image.convert("RGB")), *size
    return original or _encode(image), *size


def predicted_size(source: ImageSource, *, side: int | None, exif_rotation: bool) -> tuple[int, int]:
    """(height, width) of the image that `to_store` returns, from the file's header alone. Raises UnreadableImage."""
    if isinstance(source, Image.Image):
        return stored_size(source.height, source.width, side)
    with _open(_bytes(source)) as image:
        height, width = image.height, image.width
        if exif_rotation and _orientation(image) >= 5:
            height, width = width, height
    return stored_size(height, width, side)


def stored_size(height: int, width: int, side: int | None, *, enlarge: bool = False) -> tuple[int, int]:
    """(height, width) of an image once its short side is at most `side` pixels, or with `enlarge` just as many."""
    if side is None or (min(height, width) <= side and not enlarge):
        return height, width
    return resized_shape(height, width, side)


def _load(source: ImageSource, exif_rotation: bool) -> tuple[Image.Image, bytes | None]:
    """The image in mode RGB or L, and its file if that decodes to exactly this image."""
    if isinstance(source, Image.Image):
        return _plain(source), None
    data = _bytes(source)
    with _open(data) as image:
        frames = getattr(image, "n_frames", 1)
        try:
            image.load()
            orientation = _orientation(image) if exif_rotation else 1
            upright = image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
            plain = _plain(upright)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise errors of many kinds on broken files
            raise UnreadableImage(f"{type(error).__name__}: {error}") from error
    return plain, data if plain is image and frames == 1 else None


def _bytes(source: bytes | Path | UnreadableImage) -> bytes:
    if isinstance(source, UnreadableImage):
        raise source
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise UnreadableImage(str(error.strerror or error)) from error


def _open(data: bytes) -> Image.Image:
    """The image by its header, not decoded yet."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        what = "an empty file" if not data else _unknown(data)
        raise UnreadableImage(what) from None
    except MemoryError:
        raise
    except Exception as error:  # as above, in Pillow's parsers
        raise UnreadableImage(f"{type(error).__name__}: {error}") from error
    if image.width * image.height > PIXEL_LIMIT:
        raise UnreadableImage(f"{image.width} × {image.height} pixels are more than the limit of {PIXEL_LIMIT}")
    return image


def _unknown(data: bytes) -> str:
    """What to say of a file that Pillow does not take for an image."""
    known = next((name for mark, name in _NOT_READ.items() if mark in data[:16]), None)
    known = "JPEG XL" if data[:2] == b"\xff\x0a" else known
    if known is None:
        return f"not an image, or none of {', '.join(FORMATS)}"
    return f"a {known} image, which is not read here; convert it to JPEG, PNG or WEBP"


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) where there is none or it is invalid."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF data does not make an image unreadable
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _plain(image: Image.Image) -> Image.Image:
    """The image in mode RGB or L: the same object if it is in one of them already."""
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode in ("RGB", "L"):
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image)))
    return image.convert("L" if image.mode == "1" else "RGB")


def _eight_bits(values: np.ndarray) -> Images:
    """Grey values in 0..65535 (integers) or 0..1 (floats) as uint8."""
    top = 65535 if np.issubdtype(values.dtype, np.integer) else 1
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= top):
        raise UnreadableImage(f"{values.dtype} values from {low} to {high}, where 0 to {top} can be converted")
    return np.floor(values.astype(np.float64) * (255 / top) + 0.5).astype(np.uint8)


def _encode(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image = image.copy()
    image.info = {}  # else profiles and comments are written with it
    if image.width * image.height <= SMALL_PIXELS:
        image.save(file, "PPM")
    elif max(image.size) > WEBP_SIDE:
        image.save(file, "PNG")
    else:  # in lossless mode quality is the effort spent on size
        image.save(file, "WEBP", lossless=True, quality=0, method=0)
    return file.getvalue()
