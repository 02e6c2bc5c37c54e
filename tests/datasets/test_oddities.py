"""Images as people have them: every mode, rotation and defect, in real files."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from robust_transfer.datasets.arrow import decode, open_split
from robust_transfer.datasets.errors import DatasetError
from robust_transfer.datasets.images import UnreadableImage, predicted_size, to_store
from support.prepared_datasets import encoded, pixels, prepared, write_folder


def stored(data: bytes, *, side: int | None = None, exif_rotation: bool = True) -> np.ndarray:
    """Pixels of an image once it went through the store, which must not depend on how it is stored."""
    raw, height, width = to_store(data, side=side, exif_rotation=exif_rotation, raw=True)
    file, *size = to_store(data, side=side, exif_rotation=exif_rotation, raw=False)
    assert isinstance(raw, np.ndarray)
    assert isinstance(file, bytes)
    assert raw.shape == (height, width, 3) == (*size, 3)
    assert predicted_size(data, side=side, exif_rotation=exif_rotation) == (height, width)
    np.testing.assert_array_equal(decode(file), raw)
    return raw


def unaugmented(data: bytes, **settings: bool) -> bool:
    return to_store(data, side=None, exif_rotation=True, raw=False)[0] == data


def test_plain_files_are_stored_as_they_are():
    image = pixels(30, 40)
    for data in (encoded(image), encoded(image, "JPEG"), encoded(image, "WEBP"), encoded(image[..., 0], "JPEG")):
        assert unaugmented(data)
        np.testing.assert_array_equal(stored(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_grey_is_the_same_in_all_channels():
    grey = pixels(20, 20)[..., 0]
    np.testing.assert_array_equal(stored(encoded(grey)), np.stack([grey] * 3, -1))


def test_one_bit_is_black_and_white():
    bits = pixels(16, 16)[..., 0] > 128
    np.testing.assert_array_equal(stored(encoded(Image.fromarray(bits)))[..., 1], np.where(bits, 255, 0))


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    for data in (encoded(Image.fromarray(ramp)), encoded(Image.fromarray(ramp), "TIFF")):
        np.testing.assert_array_equal(stored(data)[..., 0], np.round(ramp / 257).astype(np.uint8))


def test_integers_and_floats_beyond_their_range_are_refused():
    deep = encoded(Image.fromarray(np.full((8, 8), 70000, np.int32)), "TIFF")
    with pytest.raises(UnreadableImage, match="70000"):
        stored(deep)
    floats = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    np.testing.assert_array_equal(stored(encoded(Image.fromarray(floats), "TIFF"))[..., 0], np.round(floats * 255))
    with pytest.raises(UnreadableImage, match=r"from 0\.0 to 255\.0"):
        stored(encoded(Image.fromarray(floats * 255), "TIFF"))


def test_transparency_lies_on_white():
    image = np.dstack([pixels(10, 10), np.full((10, 10), 255, np.uint8)])
    image[:5, :, 3] = 0
    image[5:7, :, 3] = 128
    found = stored(encoded(image))
    assert (found[:5] == 255).all()
    np.testing.assert_array_equal(found[7:], image[7:, :, :3])
    blend = (image[5:7, :, :3].astype(float) * 128 + 255 * 127) / 255
    assert np.abs(found[5:7] - blend).max() <= 1
    grey = Image.merge("LA", [Image.fromarray(image[..., 0]), Image.fromarray(image[..., 3])])
    assert (stored(encoded(grey))[:5] == 255).all()


def test_palettes_with_and_without_transparency():
    palette = Image.fromarray(pixels(16, 16)).quantize(16)
    np.testing.assert_array_equal(stored(encoded(palette)), np.asarray(palette.convert("RGB")))
    hidden = int(np.asarray(palette)[0, 0])
    found = stored(encoded(palette, transparency=hidden))
    mask = np.asarray(palette) == hidden
    assert (found[mask] == 255).all()
    np.testing.assert_array_equal(found[~mask], np.asarray(palette.convert("RGB"))[~mask])


def test_a_transparent_colour_of_a_plain_image_counts_too():
    image = pixels(16, 16)
    image[:4] = (1, 2, 3)
    assert (stored(encoded(image, transparency=(1, 2, 3)))[:4] == 255).all()


def test_cmyk_keeps_its_colours():
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = (255, 0, 0)
    image[:, 16:] = (0, 0, 255)
    found = stored(encoded(Image.fromarray(image).convert("CMYK"), "JPEG", quality=95, subsampling=0))
    assert np.abs(found[:, :12].astype(int) - (255, 0, 0)).max() < 12
    assert np.abs(found[:, 20:].astype(int) - (0, 0, 255)).max() < 12


def test_of_an_animation_the_first_frame_is_kept():
    frames = [Image.fromarray(np.full((12, 12, 3), 40 * i, np.uint8)) for i in range(1, 4)]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert (stored(data) == 40).all()
        assert not unaugmented(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation):
    upright = pixels(24, 40)
    turns = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]}
    turned = upright.transpose(1, 0, 2)
    # what the camera wrote, so that turning it by its orientation gives the upright image
    turns |= {5: turned, 6: turned[::-1], 7: turned[::-1, ::-1], 8: turned[:, ::-1]}
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = np.ascontiguousarray(turns[orientation])
    data = encoded(lying, exif=exif.tobytes())
    np.testing.assert_array_equal(stored(data), upright)
    np.testing.assert_array_equal(stored(data, exif_rotation=False), lying)
    jpeg = encoded(lying, "JPEG", quality=95, subsampling=0, exif=exif.tobytes())
    assert np.abs(stored(jpeg).astype(int) - upright).mean() < 4
    assert unaugmented(jpeg) == (orientation == 1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_no_reason_to_lose_an_image():
    image = pixels(16, 16)
    for exif in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        assert unaugmented(encoded(image, "JPEG", exif=exif))


@pytest.mark.parametrize(("height", "width"), [(1, 50), (50, 1), (1, 1), (1, 20000)])
def test_thin_images(height, width):
    image = pixels(height, width)
    np.testing.assert_array_equal(stored(encoded(image)), image)
    np.testing.assert_array_equal(stored(encoded(image), side=8), image)  # never enlarged
    transparent = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])  # so that it has to be encoded anew
    np.testing.assert_array_equal(stored(encoded(transparent)), image)


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(100, 149, (32, 47)), (149, 100, (47, 32)), (33, 32, (33, 32))]
)
def test_the_short_side_is_brought_down_by_antialiased_bilinear(height, width, expected):
    image = pixels(height, width)
    found = stored(encoded(image), side=32)
    assert found.shape[:2] == expected
    reference = Image.fromarray(image).resize(expected[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, np.asarray(reference))


def test_large_images_are_encoded_losslessly_and_without_their_profile():
    image = np.dstack([pixels(150, 130), np.full((150, 130), 255, np.uint8)])
    data, *_ = to_store(encoded(image, icc_profile=b"x" * 5000), side=None, exif_rotation=True, raw=False)
    assert isinstance(data, bytes)
    assert data[8:12] == b"WEBP"
    assert b"xxxx" not in data
    np.testing.assert_array_equal(decode(data), image[..., :3])
    for large in (image[..., :3], pixels(1, 20000)):
        profiled = encoded(Image.fromarray(large).quantize(16), icc_profile=b"x" * 5000)
        assert b"iCCP" in profiled
        file = to_store(profiled, side=None, exif_rotation=True, raw=False)[0]
        assert b"iCCP" not in file
        assert b"ICCP" not in file


def broken_files() -> dict[str, bytes]:
    jpeg = encoded(pixels(20, 24), "JPEG")
    png = bytearray(encoded(pixels(20, 24)))
    png[len(png) // 2] ^= 0xFF
    return {
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "header_only.jpg": jpeg[:30],
        "text.jpg": b"this is not an image\n" * 20,
        "empty.jpg": b"",
        "flipped_bit.png": bytes(png),
        "page.png": b"<!DOCTYPE html><html>404</html>",
        "vector.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }


@pytest.mark.parametrize("name", broken_files())
def test_broken_files_are_unreadable(name):
    with pytest.raises(UnreadableImage):
        to_store(broken_files()[name], side=None, exif_rotation=True, raw=False)


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("side", [10000, 60000])
def test_decompression_bombs_are_unreadable_before_they_are_decoded(side):
    chunks = [b"IHDR" + struct.pack(">II", side, side) + b"\x08\0\0\0\0", b"IDAT" + zlib.compress(bytes(100)), b"IEND"]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )
    with pytest.raises(UnreadableImage, match="pixels"):
        predicted_size(bomb, side=None, exif_rotation=True)
    with pytest.raises(UnreadableImage, match="pixels"):
        to_store(bomb, side=None, exif_rotation=True, raw=False)


def test_all_unreadable_images_are_named_in_one_error(tmp_path):
    write_folder(tmp_path / "set" / "train", {"cat": 3, "dog": 2})
    write_folder(tmp_path / "set" / "test", {"cat": 1, "dog": 1})
    broken = broken_files()
    for name, data in broken.items():
        (tmp_path / "set" / "train" / "cat" / name).write_bytes(data)
    (tmp_path / "set" / "test" / "dog" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    origin = {"kind": "folder", "path": str(tmp_path / "set")}
    with pytest.raises(DatasetError) as error:
        prepared(tmp_path, origin)
    assert "8 of 15 images cannot be read" in str(error.value)
    for name in [*(f"train/cat/{name}" for name in broken), "test/dog/gone.jpg"]:
        assert name in str(error.value)
    assert "unreadable: skip" in str(error.value)
    entry = prepared(tmp_path, origin, unreadable="skip")
    facts = entry.facts()
    assert facts["counts"] == {"train": 5, "test": 2}
    assert facts["skipped"] == 8
    assert "test/dog/gone.jpg" in facts["skipped_images"]
    assert facts["shape"] == [20, 24]
    np.testing.assert_array_equal(open_split(entry, "train").labels, [0, 0, 0, 1, 1])


def test_a_long_list_of_unreadable_images_is_cut_and_counted(tmp_path):
    write_folder(tmp_path / "set", {"cat": 3, "dog": 2})
    for i in range(30):
        (tmp_path / "set" / "cat" / f"broken{i:02}.jpg").write_bytes(b"no")
    with pytest.raises(DatasetError, match=r"(?s)30 of 35.*broken19.*and 10 more") as error:
        prepared(tmp_path, {"kind": "folder", "path": str(tmp_path / "set"), "test_fraction": 0.1})
    assert "broken29" not in str(error.value)


def test_names_that_are_not_utf_8_are_listed_where_images_are_skipped_and_refused_as_classes(tmp_path):
    write_folder(tmp_path / "set", {"cat": 5, "dog": 5})
    (tmp_path / "set" / "cat" / "0.png").rename(tmp_path / "set" / "cat" / "gr\udcf6n.png")
    (tmp_path / "set" / "cat" / "h\udcf6.png").write_bytes(b"no")
    origin = {"kind": "folder", "path": str(tmp_path / "set")}
    facts = prepared(tmp_path, origin, unreadable="skip").facts()
    assert facts["skipped_images"] == ["cat/h\\xf6.png"]
    assert sum(facts["counts"].values()) == 10
    (tmp_path / "set" / "dog").rename(tmp_path / "set" / "d\udcf6g")
    with pytest.raises(DatasetError, match=r"a class folder, 'd\\udcf6g', is not UTF-8, .* rename it"):
        prepared(tmp_path, origin)


def test_a_class_of_which_nothing_can_be_read_is_named(tmp_path):
    write_folder(tmp_path / "set" / "train", {"cat": 3})
    write_folder(tmp_path / "set" / "test", {"cat": 1})
    (tmp_path / "set" / "train" / "dog").mkdir()
    (tmp_path / "set" / "train" / "dog" / "a.jpg").write_bytes(b"no")
    with pytest.raises(DatasetError, match="no readable training images of dog"):
        prepared(tmp_path, {"kind": "folder", "path": str(tmp_path / "set")}, unreadable="skip")


def test_memory_errors_are_not_taken_for_broken_images(monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.Image.open", full)
    with pytest.raises(MemoryError):
        to_store(encoded(pixels(8, 8)), side=None, exif_rotation=True, raw=False)
