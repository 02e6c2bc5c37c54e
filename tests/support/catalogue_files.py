"""Small files of every catalogued dataset in its official layout: images, lists, annotations, and stray files.

Images are ellipses and rectangles on a ground; hue and shape say the class, all else is random.
"""

import io
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from robust_transfer.configuration.catalogue.imagenet import imagenet_classes
from scipy.io import savemat

CALTECH_TRAIN = {"caltech101": 30, "caltech256": 60}


def picture(label: int, classes: int, side: int, random: np.random.Generator) -> Image.Image:
    """An RGB image of about `side` pixels: of other shapes than square, and with a hue that tells the class."""
    width, height = side + int(random.integers(0, side // 2)), side
    hue = int(255 * (label + random.uniform(0.1, 0.5)) / classes)
    ground = Image.new("HSV", (width, height), (int(random.integers(256)), 60, int(random.integers(60, 200))))
    x, y = random.uniform(0, 0.3, 2)
    box = (x * width, y * height, (x + 0.6) * width, (y + 0.6) * height)
    draw = ImageDraw.Draw(ground)
    (draw.ellipse if label % 2 else draw.rectangle)(box, fill=(hue, 230, int(random.integers(150, 256))))
    return ground.convert("RGB")


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    """An image as a file in memory."""
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


class Maker:
    """Where images go and what they look like; counts are images per class."""

    def __init__(self, folder: Path, classes: int, train: int, test: int, side: int, seed: int):
        self.folder, self.classes, self.train, self.test, self.side = folder, classes, train, test, side
        self.random = np.random.default_rng(seed)

    def image(self, label: int, kind: str = "JPEG") -> bytes:
        """One more image of a class, as a file."""
        return encoded(picture(label, self.classes, self.side, self.random), kind)

    def put(self, path: str, label: int, kind: str = "JPEG") -> None:
        """Write one more image of a class."""
        self.file(path, self.image(label, kind))

    def file(self, path: str, content: bytes | str) -> None:
        """Write a file, and the folders above it."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    def lines(self, path: str, lines: list[str]) -> None:
        """Write a text file."""
        self.file(path, "".join(f"{line}\n" for line in lines))

    def matlab(self, path: str, **variables: object) -> None:
        """Write a MATLAB file."""
        self.file(path, b"")
        savemat(self.folder / path, variables)

    def split(self) -> list[tuple[str, int, int]]:
        """(split, label, index within split and class) of every image."""
        counts = {"train": self.train, "test": self.test}
        return [(split, c, i) for split, n in counts.items() for c in range(self.classes) for i in range(n)]


def make(
    name: str,
    folder: Path,
    *,
    classes: int = 4,
    train: int = 3,
    test: int = 2,
    side: int = 40,
    seed: int = 0,
) -> None:
    """Write a small copy of a catalogued dataset into `folder`, as its owners lay it out.

    `train` and `test` are images per class; as many validation images as training images where the dataset has any.
    The Caltech sets have 30 and 60 training images per class whatever `train` says, which then says nothing.
    `birdsnap` is class folders, as the paper's code read it, `birdsnap_official` the release, `imagenet` the archives.
    """
    MAKERS[name](Maker(folder, classes, train, test, side, seed))


def make_folders(folder: Path, test: str = "test", **settings: int) -> None:
    """Class folders in `train/` and `test/`, or what else the latter is called."""
    maker = Maker(folder, **{"classes": 4, "train": 3, "test": 2, "side": 40, "seed": 0} | settings)
    _folders(maker, test)


def _folders(maker: Maker, test: str = "test", names: Callable[[int], str] = lambda c: f"class_{c}") -> None:
    for split, c, i in maker.split():
        maker.put(f"{split if split == 'train' else test}/{names(c)}/{split}_{i}.jpg", c)
    maker.file("README.txt", "not an image")


def _aircraft(maker: Maker) -> None:
    base = "fgvc-aircraft-2013b/data"
    variants = [f"{700 + 100 * c}-{c} Mk {c}" for c in range(maker.classes)]
    maker.lines(f"{base}/variants.txt", variants)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    number = 34000
    for split, rows in lists.items():
        for c in list(range(maker.classes)) * (maker.test if split == "test" else maker.train):
            number += 7
            rows.append(f"{number:07} {variants[c]}")
            maker.put(f"{base}/images/{number:07}.jpg", c)
        maker.lines(f"{base}/images_variant_{split}.txt", rows)
    maker.lines(f"{base}/images_variant_trainval.txt", lists["train"] + lists["val"])
    maker.lines(f"{base}/images_family_train.txt", ["0034007 Boeing 737"])


def _birdsnap(maker: Maker) -> None:
    rows, test = [], []
    common = ["Acadian Flycatcher", "Cooper's Hawk", "Wilson's Plover"] + [f"Bird {c}" for c in range(3, maker.classes)]
    for split, c, i in maker.split():
        path = f"{common[c].replace(' ', '_').replace(chr(39), '')}/{split}{i}.jpg"
        maker.put(f"download/images/{path}", c)
        rows.append(f"http://example.org/{i}.jpg\t{'0' * 32}\t{path}\t{c + 1}\t1\t1\t9\t9\t\t")
        test += [path] if split == "test" else []
    maker.lines("images.txt", ["url\tmd5\tpath\tspecies_id\tbb_x1\tbb_y1\tbb_x2\tbb_y2\tback_x\tback_y", *rows])
    maker.lines("test_images.txt", ["path", *test])
    species = [f"{c + 1}\t{common[c]}\tAves {c}\t{common[c]}" for c in reversed(range(maker.classes))]
    maker.lines("species.txt", ["id\tcommon\tscientific\tdir", *species])


def _cars(maker: Maker) -> None:
    kind = [(key, object) for key in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    for split, path in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        count = maker.train if split == "train" else maker.test
        rows = []
        for number, c in enumerate(maker.random.permutation(np.repeat(np.arange(maker.classes), count)).tolist(), 1):
            maker.put(f"stanford_cars/cars_{split}/{number:05}.jpg", c)
            rows.append((1, 1, 9, 9, c + 1, f"{number:05}.jpg"))
        maker.matlab(f"stanford_cars/{path}", annotations=np.array(rows, kind))
    names = np.array([f"Make Model {c} 2012" for c in range(maker.classes)], object)
    maker.matlab("stanford_cars/devkit/cars_meta.mat", class_names=names)


def _caltech101(maker: Maker) -> None:
    names = ["Faces", "Faces_easy", "accordion", "airplanes"] + [f"object_{c:03}" for c in range(4, maker.classes)]
    for c in range(maker.classes):
        for i in range(CALTECH_TRAIN["caltech101"] + maker.test):
            maker.put(f"caltech101/101_ObjectCategories/{names[c]}/image_{i + 1:04}.jpg", c)
    maker.put("caltech101/101_ObjectCategories/BACKGROUND_Google/image_0001.jpg", 0)
    maker.file("caltech101/101_ObjectCategories/BACKGROUND_Google/tmp", "astray")


def _caltech256(maker: Maker) -> None:
    names = ["001.ak47", "056.dog", "198.spider-101", "257.clutter"] + [
        f"{c:03}.thing" for c in range(4, maker.classes)
    ]
    for c, name in enumerate(sorted(names[: maker.classes])):
        for i in range(CALTECH_TRAIN["caltech256"] + maker.test):
            maker.put(f"256_ObjectCategories/{name}/{name[:3]}_{i + 1:04}.jpg", c)
    first, second = sorted(names[: maker.classes])[:2]
    maker.put(f"256_ObjectCategories/{first}/greg/vision309/{first[:3]}_0001.jpg", 0)
    maker.file(f"256_ObjectCategories/{second}/RENAME2", "#!/bin/sh")


def _dtd(maker: Maker) -> None:
    names = ["banded", "blotchy", "polka-dotted", "zigzagged"] + [f"zz{c}" for c in range(4, maker.classes)]
    for split, count in {"train": maker.train, "val": maker.train, "test": maker.test}.items():
        paths = [(f"{names[c]}/{names[c]}_{split}{i:02}.jpg", c) for c in range(maker.classes) for i in range(count)]
        for path, c in paths:
            maker.put(f"dtd/images/{path}", c)
        maker.lines(f"dtd/labels/{split}1.txt", [path for path, _ in paths])
        maker.lines(f"dtd/labels/{split}2.txt", [])
    maker.file("dtd/images/banded/.directory", "astray")


def _flowers(maker: Maker) -> None:
    counts = (maker.train, maker.train, maker.test)
    labels = maker.random.permutation(np.repeat(np.arange(maker.classes), sum(counts)))
    chosen: list[list[int]] = [[], [], []]
    for c in range(maker.classes):
        rows = np.flatnonzero(labels == c) + 1
        for split, ids in enumerate(np.split(rows, np.cumsum(counts)[:-1])):
            chosen[split] += ids.tolist()
    for i, c in enumerate(labels.tolist(), start=1):
        maker.put(f"jpg/image_{i:05}.jpg", c)
    maker.matlab("imagelabels.mat", labels=labels[None] + 1.0)
    maker.matlab("setid.mat", trnid=[chosen[0]], valid=[chosen[1]], tstid=[chosen[2]])


def _food(maker: Maker) -> None:
    names = ["apple_pie", "baby_back_ribs", "sushi", "waffles"] + [f"x{c}" for c in range(4, maker.classes)]
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for split, c, i in maker.split():
        path = f"{names[c]}/{1000 * (split == 'test') + i}"
        maker.put(f"food-101/images/{path}.jpg", c)
        lists[split].setdefault(names[c], []).append(path)
    for split, by_class in lists.items():
        maker.lines(f"food-101/meta/{split}.txt", [path for paths in by_class.values() for path in paths])
        maker.file(f"food-101/meta/{split}.json", json.dumps(by_class))


def _pets(maker: Maker) -> None:
    names = ["Abyssinian", "american_bulldog", "Bombay", "yorkshire_terrier"] + [
        f"z_{c}" for c in range(4, maker.classes)
    ]
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for split, c, i in maker.split():
        image = f"{names[c]}_{100 * (split == 'test') + i}"
        maker.put(f"images/{image}.jpg", c, "GIF" if split == "train" and c == i == 0 else "JPEG")
        rows[split].append(f"{image} {c + 1} {c % 2 + 1} 1")
    maker.lines("annotations/trainval.txt", rows["train"])
    maker.lines("annotations/test.txt", rows["test"])
    maker.lines("annotations/list.txt", ["#Image CLASS-ID SPECIES BREED ID", *rows["train"], *rows["test"]])
    maker.file("images/Abyssinian_100.mat", b"astray")


def _sun397(maker: Maker) -> None:
    names = ["/a/abbey", "/b/bow_window/indoor", "/b/bow_window/outdoor", "/y/youth_hostel"]
    names += [f"/z/zoo_{c}" for c in range(4, maker.classes)]
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for split, c, i in maker.split():
        rows[split].append(f"{names[c]}/sun_{split}{i:04}.jpg")
        maker.put(f"SUN397{rows[split][-1]}", c, "PNG" if i == 0 else "JPEG")
    maker.put("SUN397/a/abbey/sun_neither.jpg", 0)
    maker.lines("SUN397/ClassName.txt", names[: maker.classes])
    maker.lines("Partitions/Training_01.txt", rows["train"])
    maker.lines("Partitions/Testing_01.txt", rows["test"])


def _cifar(maker: Maker, base: str, batches: dict[str, str], meta: str, key: str, names: str) -> None:
    order = [row for row in maker.split() if row[0] == "train"], [row for row in maker.split() if row[0] == "test"]
    files: dict[str, list[tuple[str, int, int]]] = {file: [] for file in batches}
    for split, rows in zip(("train", "test"), order, strict=True):
        into = [file for file, of in batches.items() if of == split]
        for n, row in enumerate(rows):
            files[into[n % len(into)]].append(row)
    for file, rows in files.items():
        images = [picture(c, maker.classes, 32, maker.random).resize((32, 32)) for _, c, _ in rows]
        pixels = np.array([np.asarray(image).transpose(2, 0, 1).ravel() for image in images], np.uint8).reshape(
            -1, 3072
        )
        values = {
            "data": pixels,
            key: [c for _, c, _ in rows],
            "batch_label": f"batch {file}",
            "filenames": [f"{split}_s_{i:06}.png" for split, _, i in rows],
        }
        maker.file(f"{base}/{file}", python2_pickle(values))
    labels = [f"class {c}" for c in range(maker.classes)]
    maker.file(f"{base}/{meta}", python2_pickle({names: labels, "num_vis": 3072}))
    maker.file(f"{base}/readme.html", "<html>")


def _cifar10(maker: Maker) -> None:
    batches = {f"data_batch_{n}": "train" for n in range(1, 6)} | {"test_batch": "test"}
    _cifar(maker, "cifar-10-batches-py", batches, "batches.meta", "labels", "label_names")


def _cifar100(maker: Maker) -> None:
    _cifar(maker, "cifar-100-python", {"train": "train", "test": "test"}, "meta", "fine_labels", "fine_label_names")


def python2_pickle(value: object) -> bytes:
    """A pickle of protocol 2 as Python 2 and NumPy 1 wrote it: byte strings, and arrays by `_reconstruct`."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: object) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(key) + _opcodes(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_opcodes, value)) + b"t"
    if isinstance(value, bool) or value is None:
        return {True: b"\x88", False: b"\x89", None: b"N"}[value]
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, str | bytes):
        data = value.encode("latin-1") if isinstance(value, str) else value
        return b"T" + struct.pack("<i", len(data)) + data
    assert isinstance(value, np.ndarray)
    made = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + _opcodes((0,)) + _opcodes("b") + b"\x87R"
    kind = (
        b"cnumpy\ndtype\n"
        + _opcodes((value.dtype.str[1:], 0, 1))
        + b"R"
        + _opcodes((3, "|", *[None] * 3, -1, -1, 0))
        + b"b"
    )
    return (
        made + b"(" + _opcodes(1) + _opcodes(value.shape) + kind + _opcodes(False) + _opcodes(value.tobytes()) + b"tb"
    )


def _imagenet(maker: Maker) -> None:
    """The three archives: class archives in one, flat validation images, and the kit that says their classes.

    The kit numbers synsets in another order than labels, and lists an inner node of WordNet besides.
    """
    wnids = imagenet_classes()[:: 1000 // maker.classes][: maker.classes]
    ids = {wnid: maker.classes - n for n, wnid in enumerate(wnids)}
    with tarfile.open(_parent(maker.folder / "ILSVRC2012_img_train.tar"), "w") as archive:
        for c, wnid in enumerate(wnids):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as images:
                for i in range(maker.train):
                    _add(images, f"{wnid}_{i + 1}.JPEG", maker.image(c))
            _add(archive, f"{wnid}.tar", inner.getvalue())
    labels = maker.random.permutation(np.repeat(np.arange(maker.classes), maker.test)).tolist()
    with tarfile.open(maker.folder / "ILSVRC2012_img_val.tar", "w") as archive:
        for i, c in enumerate(labels, start=1):
            _add(archive, f"ILSVRC2012_val_{i:08}.JPEG", maker.image(c))
    kind = [(key, object) for key in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
    rows = [
        (number, wnid, f"words {wnid}", "gloss", 0) for wnid, number in sorted(ids.items(), key=lambda item: item[1])
    ]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array([*rows, (len(rows) + 1, "n00001740", "entity", "that which is", 2)], kind)})
    truth = "".join(f"{ids[wnids[c]]}\n" for c in labels)
    with tarfile.open(maker.folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        _add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        _add(archive, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth.encode())


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


MAKERS: dict[str, Callable[[Maker], None]] = {
    "aircraft": _aircraft,
    "birdsnap": _folders,
    "birdsnap_official": _birdsnap,
    "caltech101": _caltech101,
    "caltech256": _caltech256,
    "cars": _cars,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "dtd": _dtd,
    "flowers": _flowers,
    "food": _food,
    "imagenet": _imagenet,
    "pets": _pets,
    "sun397": _sun397,
}
