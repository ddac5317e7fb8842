"""Damage files at random and read them: nothing may crash, hang, grow, or raise anything but the one error.

    python tests/fuzz.py --minutes 10 [--seed 0] [--keep DIR]

A child process does the work and says before each case which one it is, so that even a crash of a decoder is traced to
its input; inputs that fail are kept. Exit code 1 if anything failed. The test suite runs a few seconds of it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import gzip
import io
import json
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from openilias.core.errors import OpenIliasError
from openilias.data import read_ilias
from openilias.data.ilias import find_ilias
from openilias.data.lists import listed_distractors
from openilias.data.taxonomy import read_taxonomy
from openilias.data.verify import verify
from openilias.images.boxes import coverage, read_boxes
from openilias.images.decode import camera_of, decode, examine, upright_size
from openilias.images.tar_index import scan_once
from openilias.images.tars import TarReader, write_tar

CASE_SECONDS = 20
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # files are written through; a disk would be the limit
MOST_GROWTH_MIB = 150
EXTREMES = [b"\0", b"\xff", b"-1", b"0", b"99999999999999999999", b"\n", b"\r", b",", b"/", b"../", b"\xf0\x9f", b"NaN",
            b"{", b"[[[[", b'"', b"\xff\xd8", b"\xff\xda", b"ustar", b" "]  # fmt: skip


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Damage a file in one to six ways."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        size = len(data)
        at = rng.randrange(size + 1)
        end = min(size, at + rng.choice((1, 1, 2, 8, 64, 512, 4096)))
        match rng.randrange(8):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:at] + rng.randbytes(end - at) + data[end:]
            case 3:
                data = data[:at] + rng.choice(EXTREMES) * rng.choice((1, 1, 1, 40)) + data[at:]
            case 4:
                data = data[:at] + data[at:end] * rng.choice((2, 2, 30)) + data[end:]
            case 5 if size:
                flipped = bytearray(data)
                for _ in range(rng.choice((1, 4))):
                    flipped[rng.randrange(size)] ^= 1 << rng.randrange(8)
                data = bytes(flipped)
            case 6:
                other = rng.choice(others)
                data = data[:at] + other[rng.randrange(len(other) + 1) :]
            case _:
                numbers = list(re.finditer(rb"-?\d+", data[:100_000]))
                if numbers:
                    found = rng.choice(numbers)
                    value = rng.choice((b"-1", b"0", b"1e400", b"4294967296", b"9" * 30, b"0.5"))
                    data = data[: found.start()] + value + data[found.end() :]
    return data[: 4 * 2**20]


def photos(rng: random.Random) -> list[bytes]:
    """Small pictures of every format and kind that is read."""
    found = []
    for mode in ("RGB", "L", "CMYK", "RGBA", "P", "1", "I;16", "LA"):
        image = Image.frombytes("RGB", (40, 28), rng.randbytes(40 * 28 * 3))
        image = Image.new("I;16", (9, 9), 999) if mode == "I;16" else image.convert(mode)
        for form, options in (
            ("JPEG", {}),
            ("JPEG", {"progressive": True}),
            ("PNG", {}),
            ("WEBP", {}),
            ("GIF", {}),
            ("BMP", {}),
        ):
            out = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112], exif[0x0110] = 6, "A Camera"
            with contextlib.suppress(OSError, ValueError, KeyError):
                image.save(out, form, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}), **options)
                found.append(out.getvalue())
    return found


def tars(folder: Path, images: list[bytes]) -> list[bytes]:
    write_tar(folder / "plain.tar", [(f"{number:04d}.jpg", data) for number, data in enumerate(images[:9])])
    found = [(folder / "plain.tar").read_bytes()]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as tar:
            for number, data in enumerate(images[:6]):
                info = tarfile.TarInfo(f"{'long' * 40}é{number}.jpg")
                info.size, info.mtime = len(data), 1.5
                tar.addfile(info, io.BytesIO(data))
        found.append(out.getvalue())
    return found


class Targets:
    """What is damaged, and how it is read."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.images = photos(random.Random(0))
        self.tars = tars(folder, self.images)
        self.root = Path(shutil.copytree(root, folder / "benchmark"))
        lists = self.root / "image_ids"
        self.files = [*lists.glob("*.txt"), lists / "distractor_ids.txt.gz", self.root / "checksums.txt",
                      self.root / "taxonomy.json", *sorted(self.root.glob("*/*/*/*.txt"))[:6]]  # fmt: skip
        self.whole = {path: path.read_bytes() for path in self.files}
        boxes = b"".join(path.read_bytes() for path in sorted(self.root.glob("*/*/*/*_bbox.txt"))[:3])
        kept = folder / "kept"
        (folder / "x.tar").write_bytes(self.tars[0])
        scan_once(folder / "x.tar", kept)
        self.index = next(kept.iterdir())
        self.index_bytes = self.index.read_bytes()
        self.kinds: dict[str, tuple[list[bytes], Callable[[bytes], object]]] = {
            "image": (self.images, self.read_image),
            "tar": (self.tars, self.read_tar),
            "boxes": ([boxes], self.read_boxes),
            "taxonomy": ([self.whole[self.root / "taxonomy.json"], json.dumps({"a": {"b": {"c": []}}}).encode()],
                         self.read_taxonomy),
            "list": ([self.whole[lists / "distractor_ids.txt.gz"], gzip.compress(b"a.tar/b\n" * 50)], self.read_list),
            "index": ([self.index_bytes], self.read_index),
        }  # fmt: skip

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def read_image(self, data: bytes) -> None:
        assert (camera_of(data) or "x").isprintable()
        for read in (examine, upright_size, decode):
            with contextlib.suppress(OpenIliasError):
                read(data, where="x")
        with contextlib.suppress(OpenIliasError):
            decode(data, where="x", compat="official")

    def read_tar(self, data: bytes) -> None:
        path = self.write("x.tar", data)
        scan = scan_once(path, None)
        with contextlib.suppress(OpenIliasError), TarReader(path) as reader:
            for key, _ in reader:
                assert key.isprintable()
                assert ".." not in key.split("/")
        assert len(scan.index) <= len(data) // 512

    def read_boxes(self, data: bytes) -> None:
        boxes = read_boxes(self.write("b_bbox.txt", data))
        assert 0 <= coverage(boxes, width=500, height=375) <= 1

    def read_taxonomy(self, data: bytes) -> None:
        read_taxonomy(self.write("t.json", data)).counts()

    def read_list(self, data: bytes) -> None:
        for item in listed_distractors(self.write("l.txt.gz", data)):
            assert item

    def read_index(self, data: bytes) -> None:
        self.write("x.tar", self.tars[0])
        self.index.write_bytes(data)
        scan_once(self.folder / "x.tar", self.index.parent)

    def read_benchmark(self, rng: random.Random) -> bytes:
        """Damage one file of a benchmark, then read and verify the whole."""
        path = rng.choice(self.files)
        data = mutate(rng, self.whole[path], list(self.whole.values()))
        path.write_bytes(data)
        try:
            with contextlib.suppress(OpenIliasError):
                find_ilias(self.root)
            with contextlib.suppress(OpenIliasError):
                found = read_ilias(self.root)
                assert found.fingerprint
                assert found.unknown(found.positives) == []
            with contextlib.suppress(OpenIliasError):
                verify(self.root, depth="headers", workers=1)
        finally:
            path.write_bytes(self.whole[path])
        return data


def one(targets: Targets, number: int, seed: int) -> tuple[str, bytes]:
    """Do one case; it depends on its number and the seed alone."""
    rng = random.Random(f"{seed} {number}")
    name = rng.choice(("image", "image", "tar", "tar", "boxes", "taxonomy", "list", "index", "benchmark"))
    if name == "benchmark":
        return name, targets.read_benchmark(rng)
    inputs, read = targets.kinds[name]
    data = mutate(rng, rng.choice(inputs), inputs)
    try:
        with contextlib.suppress(OpenIliasError):
            read(data)
    except BaseException as error:
        error.data = data
        raise
    return name, data


def rss_mib() -> float:
    """Return the memory in use now: a large picture that is read and gone is no growth."""
    gc.collect()
    pages = Path("/proc/self/statm")
    if not pages.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(pages.read_text().split()[1]) * resource.getpagesize() / 2**20


def child(seed: int, start: int, seconds: float, root: Path, keep: Path) -> int:
    """Do cases until the time is over; print how far it came, and stop at the first failure."""

    def hang(*_: object) -> None:
        raise TimeoutError(f"a case took more than {CASE_SECONDS} s")

    signal.signal(signal.SIGALRM, hang)
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        tempfile.tempdir = folder  # where the verifier works
        targets = Targets(Path(folder), root)
        number = start
        while time.monotonic() < deadline:
            print(f"case {number}", flush=True)
            signal.alarm(CASE_SECONDS)
            try:
                one(targets, number, seed)
            except BaseException as error:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{number}").write_bytes(getattr(error, "data", b""))
                print(f"failed {number}: {type(error).__name__}: {str(error)[:300]}", flush=True)
                return 1
            finally:
                signal.alarm(0)
            number += 1
            if number == start + 500:
                warm = rss_mib()
            elif (number - start) % 100_000 == 0:
                print(f"memory {number - start} {warm:.0f} {rss_mib():.0f}", flush=True)
        if number > start + 500:
            print(f"memory {number - start} {warm:.0f} {rss_mib():.0f}", flush=True)
    return 0


def fuzz(minutes: float, seed: int, root: Path, keep: Path) -> list[str]:
    """Return what failed."""
    failures: list[str] = []
    end, start, cases = time.monotonic() + 60 * minutes, 0, 0
    while (left := end - time.monotonic()) > 0:
        command = [sys.executable, __file__, "--child", str(start), str(left), "--seed", str(seed)]
        done = subprocess.run(
            [*command, "--root", str(root), "--keep", str(keep)], capture_output=True, text=True, check=False
        )
        lines = done.stdout.splitlines()
        last = max((int(text.split()[1]) for text in lines if text.startswith("case ")), default=start)
        cases += last - start + 1
        failures += [text for text in lines if text.startswith("failed ")]
        for text in lines:
            if text.startswith("memory "):
                count, warm, now = (int(word) for word in text.split()[1:])
                print(f"memory after 500 cases {warm} MiB, after {count} {now} MiB")
                if now - warm > MOST_GROWTH_MIB:
                    failures.append(f"memory grew from {warm} to {now} MiB in {count} cases")
        if done.returncode < 0 or (done.returncode and not failures):
            failures.append(f"case {last}: the process died with {done.returncode}: {done.stderr[-2000:]}")
        start = last + 1
    print(f"{cases} cases, {len(failures)} failures")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--root", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("START", "SECONDS"))
    arguments = parser.parse_args()
    if arguments.child:
        start, seconds = int(arguments.child[0]), float(arguments.child[1])
        return child(arguments.seed, start, seconds, arguments.root, arguments.keep)
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root
        if root is None:
            from openilias.build.generated.synth import SynthSettings, build_synth

            root = Path(folder) / "benchmark"
            build_synth(root, SynthSettings(objects=4, distractors=14, size=160, shard=8, positives=(2, 3)), workers=1)
        failures = fuzz(arguments.minutes, arguments.seed, root, arguments.keep)
    print("\n".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
