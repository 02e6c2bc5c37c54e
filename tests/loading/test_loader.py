"""Loaders: the same bits from memory and from any number of workers, and workers that stop when they should."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import closing, contextmanager
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from robust_transfer import randomness
from robust_transfer.configuration.running import Running
from robust_transfer.configuration.training import Recipe
from robust_transfer.datasets.arrow import open_split
from robust_transfer.datasets.resident import square_images
from robust_transfer.datasets.storing import SplitWriter
from robust_transfer.loading import shared_memory, streaming
from robust_transfer.loading.augmentation import CROP_NUMBERS, random_crop
from robust_transfer.loading.loader import LoadingError, Resident, Streaming, Subset, open_loader
from robust_transfer.store.entry import StoreError
from support.disks import enlarge, small_disk
from support.prepared_datasets import encoded, new_entry, pixels, written
from support.processes import environment, first_line, start

N, SIDE = 200, 48  # 1.3 MB of squares: not resident at resident_mb 1
SQUARES = ("none", "flip", "crop-flip", "square-resized-crop-flip")


@pytest.fixture(autouse=True)
def one_thread():
    """Batches are small here, and workers want a core too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    """JPEG images of many sizes, in record batches of about a dozen."""
    images = [encoded(pixels(50 + i % 9, 70 - i % 11, i), "JPEG") for i in range(N)]
    return written(tmp_path_factory.mktemp("jpegs"), images, [i % 7 for i in range(N)], batch_bytes=2**15)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Images of one shape, stored as raw pixels."""
    images = [pixels(SIDE, SIDE + 4, i) for i in range(N)]
    return written(tmp_path_factory.mktemp("raw"), images, [i % 7 for i in range(N)], batch_bytes=2**16)


def whole(entry):
    split = open_split(entry, "train")
    return [Subset(split, np.arange(len(split)))]


@contextmanager
def opened(parts, augmentation="resized-crop-flip", *, workers=0, resident_mb=1, ratio=1.0, seed=3, **settings):
    recipe = Recipe(augmentation=augmentation, batch_size=70, **settings)
    running = Running(workers=workers, resident_mb=resident_mb)
    device = torch.device("cpu")
    loader = open_loader(
        parts, recipe, input_size=SIDE, resize_ratio=ratio, seed=seed, device=device, threads=1, running=running
    )
    with closing(loader):
        yield loader


def groups(epoch=0, n=N):
    return list(torch.split(randomness.order(0, epoch, n), 70))


def everything(loader, size=SIDE):
    """Two epochs of batches, the second smaller."""
    epochs = [list(loader.batches(0, groups(), size)), list(loader.batches(1, groups(1), size - 11))]
    for batches, side in zip(epochs, (size, size - 11), strict=True):
        assert [batch.shape for batch in batches] == [(n, 3, side, side) for n in (70, 70, 60)]
        for batch in batches:
            assert batch.dtype == torch.float32
            assert 0 <= batch.min() < batch.max() <= 1
            assert batch.is_contiguous(memory_format=torch.channels_last)
    return [*epochs[0], *epochs[1]]


def equal(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


class TestBits:
    @pytest.mark.parametrize("colours", [{}, {"colour_jitter": 0.2, "lighting": 0.1}], ids=["plain", "coloured"])
    @pytest.mark.parametrize("kind", SQUARES)
    @pytest.mark.parametrize("stored", ["jpegs", "raw"])
    def test_streaming_and_resident_images_give_the_same_bits(self, request, stored, kind, colours):
        parts = whole(request.getfixturevalue(stored))
        with opened(parts, kind, resident_mb=100, **colours) as resident, opened(parts, kind, **colours) as streaming:
            assert isinstance(resident, Resident)
            assert isinstance(streaming, Streaming)
            actual = everything(streaming)
            assert equal(everything(resident), actual)
        if kind != "none" or colours:
            with opened(parts, kind, seed=4, **colours) as other:
                assert not equal(everything(other), actual)

    @pytest.mark.parametrize("kind", ["crop-flip", "resized-crop-flip"])
    def test_the_number_of_workers_does_not_matter(self, jpegs, kind, monkeypatch):
        monkeypatch.setattr(streaming, "CHUNK", 16)  # so that workers share every batch
        with opened(whole(jpegs), kind) as loader:
            expected = everything(loader)
        for workers in (1, 2, 3):
            with opened(whole(jpegs), kind, workers=workers) as loader:
                assert equal(everything(loader), expected)

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are spawned")
    def test_workers_are_forked_though_cuda_has_started(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        assert streaming._start_method() == "fork"

    def test_spawned_workers_give_the_same(self, jpegs, monkeypatch):
        with opened(whole(jpegs)) as loader:
            expected = everything(loader)
        monkeypatch.setattr(streaming, "_start_method", lambda: "spawn")
        parts = whole(jpegs)
        with opened(parts, workers=1) as loader:
            assert equal(everything(loader), expected)
            assert parts[0].split.verified.all()  # as the worker found, in a split of its own

    @pytest.mark.parametrize("workers", [0, 2])
    def test_an_epoch_can_start_in_the_middle_and_end_there(self, jpegs, workers):
        with opened(whole(jpegs), workers=workers) as loader:
            expected = list(loader.batches(1, groups(1), SIDE))
        with opened(whole(jpegs), workers=workers) as loader:
            assert equal(list(loader.batches(1, groups(1)[1:], SIDE)), expected[1:])
            left = loader.batches(0, groups(), SIDE)
            next(left)
            assert equal(list(loader.batches(1, groups(1), SIDE)), expected)
            with pytest.raises(RuntimeError, match=r"batches\(\) was called again"):
                next(left)

    def test_the_global_random_state_is_neither_used_nor_changed(self, jpegs):
        with opened(whole(jpegs), workers=1, colour_jitter=0.1) as loader:
            torch.manual_seed(1)
            expected = everything(loader)
            torch.manual_seed(2)
            before = torch.get_rng_state()
            assert equal(everything(loader), expected)
            assert torch.equal(torch.get_rng_state(), before)

    def test_crops_are_those_of_the_stored_image_at_that_size(self, jpegs):
        (part,) = whole(jpegs)
        with opened([part], workers=1) as loader:
            (actual,) = loader.batches(5, [torch.tensor([17, 4])], 40)
        drawn = randomness.per_image(3, randomness.AUGMENTATION, 5, torch.tensor([17, 4]), CROP_NUMBERS).tolist()
        for image, index, row in zip(actual, (17, 4), drawn, strict=True):
            expected = torch.from_numpy(random_crop(part.split.picture(index), row, 40).copy())
            assert torch.equal((image * 255).round().byte(), expected.permute(2, 0, 1))

    @pytest.mark.parametrize("resident_mb", [1, 100])
    def test_subsets_are_numbered_consecutively(self, jpegs, raw, resident_mb):
        one, other = whole(jpegs)[0], whole(raw)[0]
        parts = [Subset(one.split, np.arange(50, 150)), Subset(other.split, np.arange(3, 190, 2)), other]
        n = list(accumulate(map(len, parts)))
        assert n == [100, 194, 394]
        with opened(parts, "none", resident_mb=resident_mb) as loader:
            assert loader.labels.dtype == torch.int64
            for number, part, row in (
                (0, one, 50),
                (99, one, 149),
                (100, other, 3),
                (193, other, 189),
                (194, other, 0),
            ):
                ((actual,),) = loader.batches(0, [torch.tensor([number])], SIDE)
                expected = square_images(part.split, SIDE, 1.0, indices=np.array([row]))[0]
                assert np.array_equal((actual * 255).round().byte().permute(1, 2, 0).numpy(), expected)
                assert loader.labels[number] == part.split.labels[row]
            mixed = torch.tensor([150, 3, 393, 0])
            (actual,) = loader.batches(0, [mixed], SIDE)
            assert torch.equal(actual, loader.unaugmented(mixed, SIDE))

    @pytest.mark.parametrize("kind", ["crop-flip", "square-resized-crop-flip", "resized-crop-flip"])
    @pytest.mark.parametrize("resident_mb", [1, 100])
    def test_unaugmented_images_are_those_of_evaluation(self, jpegs, kind, resident_mb):
        (part,) = whole(jpegs)
        numbers = torch.tensor([9, 180, 0])
        with opened([part], kind, resident_mb=resident_mb, ratio=1.15, colour_jitter=0.5) as loader:
            for size in (SIDE, 20):
                expected = torch.from_numpy(square_images(part.split, size, 1.15)[numbers]).permute(0, 3, 1, 2) / 255
                actual = loader.unaugmented(numbers, size)
                assert torch.equal(actual, expected)
                assert actual.is_contiguous(memory_format=torch.channels_last)


class TestMemory:
    @pytest.mark.parametrize(
        ("kind", "resident_mb", "kept"),
        [("none", 1, False), ("none", 2, True), ("square-resized-crop-flip", 5, False),
         ("square-resized-crop-flip", 6, True), ("resized-crop-flip", 100, False)],
    )  # fmt: skip
    def test_images_are_resident_where_their_squares_fit(self, raw, kind, resident_mb, kept):
        """1.3 MB, four times that at twice the side."""
        with opened(whole(raw), kind, resident_mb=resident_mb) as loader:
            assert isinstance(loader, Resident) == kept
            list(loader.batches(0, groups(), SIDE))
            assert (loader.waited == 0) == kept
            assert (loader.rate() is None) == kept

    def test_workers_share_which_record_batches_are_verified(self, jpegs):
        parts = whole(jpegs)
        with opened(parts, workers=2) as loader:
            assert not parts[0].split.verified.any()
            list(loader.batches(0, groups(), SIDE))
            assert parts[0].split.verified.all()

    @pytest.mark.faults  # 7 s
    def test_does_not_grow_with_the_dataset(self, tmp_path):
        """Anonymous memory of process and workers once every record batch was read from: labels and indices apart.

        180,000 images more are 350 MB more. Measured: 16.1 bytes per image in a worker, and in the process that starts
        them 24 of labels, indices and labels on the device, in a noise that reached 19 MB on a machine of two cores.
        """
        small, large = (measured(stored(tmp_path, n), n) for n in (20_000, 200_000))
        assert (small["record_batches"], large["record_batches"]) == (1, 6)
        growth = [after - before for before, after in zip(small["anonymous"], large["anonymous"], strict=True)]
        assert len(growth) == 3
        assert growth[0] < 180_000 * 24 + 64 * 2**20
        assert max(growth[1:]) < 180_000 * 16 + 2**20


def stored(root, n):
    """An entry of n small JPEG images, of which a few hundred differ; written in seconds."""
    bodies = [encoded(pixels(40, 40, i), "JPEG", quality=95) for i in range(300)]
    entry = new_entry(root, "datasets", {})
    with entry.writing() as draft:
        with SplitWriter(draft.file("train.arrow"), None) as writer:
            for i in range(n):
                writer.add(bodies[i * 7 % 300], i % 1000)
        facts = {"classes": [str(i) for i in range(1000)], "counts": {"train": n}}
        draft.facts = facts | {"checksums": {"train": writer.checksums}}
    return entry


def measured(entry, n, workers=2):
    """Anonymous memory of a new process and of its workers, code apart, after 16 batches from all over the dataset."""
    code = f"""

        def anonymous(pid):
            status = dict(line.split(":", 1) for line in Path(f"/proc/{{pid}}/status").read_text().splitlines())
            return int(status["RssAnon"].split()[0]) * 1024

        code = anonymous(os.getpid())  # varies by 10 MB from run to run, and workers are forks of it
        split = open_split(open_entry(Path({str(entry.path)!r})), "train")
        loader = open_loader(
            [Subset(split, np.arange(len(split)))], Recipe(batch_size=128, augmentation="resized-crop-flip"),
            input_size=32, resize_ratio=1.0, seed=0, device=torch.device("cpu"), threads=1,
            running=Running(workers={workers}),
        )
        groups = torch.randint({n}, (16, 128), generator=torch.Generator().manual_seed(0)).unbind()
        for _ in loader.batches(0, groups, 32):
            pass
        assert split.verified.all()
        pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
        actual = [anonymous(pid) - code for pid in pids]
        print(json.dumps({{"anonymous": actual, "record_batches": len(split.verified)}}))
        loader.close()
    """
    return json.loads(python(code).communicate()[0])


PROLOGUE = """
import json, multiprocessing, os, signal, sys
from pathlib import Path
import numpy as np
import torch
from robust_transfer.configuration.running import Running
from robust_transfer.configuration.training import Recipe
from robust_transfer.datasets.arrow import open_split
from robust_transfer.loading.loader import Subset, open_loader
from robust_transfer.store.entry import open_entry
"""


def python(code):
    """A process that runs code with the package on its path."""
    return start(PROLOGUE + textwrap.dedent(code))


class TestFaults:
    @pytest.fixture
    def broken(self, tmp_path):
        """Image 77 is half a file, stored as such: its checksum is right."""
        images = [encoded(pixels(50, 60, i), "JPEG") for i in range(N)]
        images[77] = images[77][: len(images[77]) // 2]
        return written(tmp_path, images, [0] * N)

    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_an_image_that_cannot_be_decoded_is_named(self, broken, workers):
        message = rf"^{broken.path}/train\.arrow: image 77 cannot be decoded \(OSError: .*store renew {broken.path}$"
        with opened(whole(broken), workers=workers) as loader:
            batches = loader.batches(0, [torch.arange(60), torch.arange(60, 120)], SIDE)
            next(batches)
            with pytest.raises(StoreError, match=message):
                next(batches)
            assert len(list(loader.batches(0, [torch.arange(60)], SIDE))) == 1  # nothing of it is left

    def test_an_undecodable_image_cannot_be_resident(self, broken):
        with (
            pytest.raises(StoreError, match=r"image 77 cannot be decoded"),
            opened(whole(broken), "flip", resident_mb=100),
        ):
            pass

    @pytest.mark.parametrize("workers", [0, 2])
    def test_altered_bytes_are_named(self, tmp_path, workers):
        images = [encoded(pixels(50, 60, i), "JPEG") for i in range(N)]
        entry = written(tmp_path, images, [0] * N, batch_bytes=2**15)
        path = entry.path / "train.arrow"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with (
            opened(whole(entry), workers=workers) as loader,
            pytest.raises(StoreError, match=r"train\.arrow: images \d+ to \d+ do not match the checksum"),
        ):
            list(loader.batches(0, groups(), SIDE))

    @pytest.mark.parametrize("taken", [1, 9])  # DataLoader says something else at times
    def test_a_worker_that_was_killed_is_reported(self, jpegs, taken):
        with opened(whole(jpegs), workers=2) as loader:
            batches = loader.batches(0, groups() * 50, SIDE)
            for _ in range(taken):
                next(batches)
            multiprocessing.active_children()[0].kill()
            with pytest.raises(LoadingError, match=r"a process that reads images died .*set running\.workers lower"):
                list(batches)
        assert not multiprocessing.active_children()

    def test_too_little_shared_memory_is_said_before_a_worker_starts(self, jpegs, tmp_path, monkeypatch):
        """As in a container of Docker's, which has 64 MB. Two workers read two batches of 70 ahead, in chunks of 64."""
        needed = (2 * 2 + 1) * 64 * SIDE**2 * 3
        with small_disk(tmp_path / "shm", needed // 1024 - 4) as shm:
            monkeypatch.setattr(shared_memory, "SHARED", shm)
            says = rf"{shm} has 2 MB, of which 2 are free, and 2 processes that read images need 3 MB .*--shm-size=1g.*"
            with pytest.raises(LoadingError, match=says + r"running: \{workers: 0\}"), opened(whole(jpegs), workers=2):
                pass
            assert not multiprocessing.active_children()
            with opened(whole(jpegs), workers=0) as loader:
                assert len(list(loader.batches(0, groups(), SIDE))) == 3
            enlarge(shm, needed // 1024 + 4)
            with opened(whole(jpegs), workers=2) as loader:
                assert len(list(loader.batches(0, groups(), SIDE))) == 3

    def test_a_worker_that_finds_shared_memory_full_later_is_said_to_have(self, jpegs):
        with opened(whole(jpegs), workers=1) as loader:
            batches = loader.batches(0, groups(), SIDE)
            next(batches)
            (worker,) = multiprocessing.active_children()
            assert worker.pid
            os.kill(worker.pid, signal.SIGBUS)
            with pytest.raises(LoadingError, match=r"killed by SIGBUS: /dev/shm is full .*larger --shm-size"):
                list(batches)

    @pytest.mark.faults  # for its length
    def test_what_is_asked_for_is_enough(self, jpegs):
        """In a mount namespace with just so much, and with a slow reader, for whom everything is read ahead."""
        for spare, ends in ((64, "read"), (-1024, "LoadingError")):
            kilobytes = (3 * 2 + 1) * 64 * SIDE**2 * 3 // 1024 + spare
            code = f"""
                import time
                from pathlib import Path
                import numpy as np, torch
                from robust_transfer.configuration.running import Running
                from robust_transfer.configuration.training import Recipe
                from robust_transfer.datasets.arrow import open_split
                from robust_transfer.loading.loader import LoadingError, Subset, open_loader
                from robust_transfer.store.entry import open_entry

                split = open_split(open_entry(Path({str(jpegs.path)!r})), "train")
                recipe = Recipe(batch_size=64, augmentation="resized-crop-flip")
                try:
                    loader = open_loader(
                        [Subset(split, np.arange(len(split)))], recipe, input_size={SIDE}, resize_ratio=1.0, seed=0,
                        device=torch.device("cpu"), threads=1, running=Running(workers=3),
                    )
                    for _ in loader.batches(0, [torch.arange(64)] * 12, {SIDE}):
                        time.sleep(0.3)
                    loader.close()
                    print("read")
                except LoadingError:
                    print("LoadingError")
            """
            mount = f'mount -t tmpfs -o size={kilobytes}k tmpfs /dev/shm && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", textwrap.dedent(code)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120)
            if "unshare" in done.stderr:
                pytest.skip(f"no mount namespaces here: {done.stderr}")
            assert done.stdout.strip() == ends, done.stderr

    def test_workers_ignore_signals_meant_for_their_parent(self, jpegs):
        with opened(whole(jpegs), workers=2) as loader:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                for child in multiprocessing.active_children():
                    assert child.pid
                    os.kill(child.pid, number)
            assert len(list(loader.batches(0, groups(), SIDE))) == 3

    def test_signal_handlers_of_the_parent_are_restored(self, jpegs):
        def state():
            handlers = [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)]
            return handlers, signal.pthread_sigmask(signal.SIG_BLOCK, [])

        before = state()
        with opened(whole(jpegs), workers=1):
            assert state() == before

    @pytest.mark.parametrize("taken", [0, 1, 3])
    def test_close_leaves_no_processes(self, jpegs, taken):
        with opened(whole(jpegs), workers=2) as loader:
            pids = [child.pid for child in multiprocessing.active_children()]
            batches = loader.batches(0, groups(), SIDE)
            for _ in range(taken):
                next(batches)
            start = time.monotonic()
            loader.close()
            assert time.monotonic() - start < 4  # they were told, and not killed once that had failed
            assert not any(alive(pid) for pid in pids)
            loader.close()  # a second time does nothing

    @pytest.mark.parametrize("end", ["sys.exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
    def test_workers_end_with_their_parent(self, jpegs, end):
        """Even if it has not closed the loader."""
        code = f"""
            split = open_split(open_entry(Path({str(jpegs.path)!r})), "train")
            loader = open_loader(
                [Subset(split, np.arange({N}))], Recipe(augmentation="resized-crop-flip"), input_size=32,
                resize_ratio=1.0, seed=0, device=torch.device("cpu"), threads=2, running=Running(),
            )
            batches = loader.batches(0, [torch.arange({N})] * 1000, 32)
            next(batches)
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            {end}
        """
        process = python(code)
        pids = [int(pid) for pid in first_line(process.stdout).split()]
        assert len(pids) == 2
        assert process.wait(timeout=8) == (3 if "exit" in end else -signal.SIGKILL)
        deadline = time.monotonic() + 2
        while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(alive(pid) for pid in pids)
        process.communicate()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
