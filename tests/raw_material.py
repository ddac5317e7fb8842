"""Raw material of a test set: a web that is to be fetched from as if it were Flickr and S3, and a collector's folder.

From photographs in the official layout where there are some, else from a generated test set.
"""

from __future__ import annotations

import bz2
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

from faulty_server import Fault, FaultyServer, endless, garbage, resets, says, serves, stalls, truncates
from openilias.build.generated.synth import SynthSettings, build_synth
from openilias.build.tables.yfcc import hash_of, medium_url, s3_url
from openilias.images.tars import TarReader

FLICKR, S3 = "https://live.staticflickr.com", "https://multimedia-commons.s3-us-west-2.amazonaws.com"


@dataclass(frozen=True)
class Raw:
    """What a set is made from.

    Attributes:
        metadata: a table as YFCC100M is published, packed by bzip2.
        photos: how many of its lines are photographs; the others are videos and one that is broken.
        good: ids of those that can be had in the end.
        pages: path -> bytes of the web that serves them.
        collector: a folder per object, with ``query``, ``pos``, boxes.
        taxonomy: of the objects, as a table.
    """

    metadata: Path
    photos: int
    good: frozenset[str]
    pages: dict[str, bytes]
    faults: dict[str, list[Fault]]
    always: dict[str, Fault]
    collector: Path
    taxonomy: Path


def pictures_of(folder: Path, photographs: Path | None, *, objects: int, distractors: int) -> tuple[Path, list[Path]]:
    """Return a core in the official layout and files of distractors."""
    if photographs is not None:
        core = photographs / "core"
        found = sorted((photographs / "distractors").iterdir())
    else:
        settings = SynthSettings(objects=objects, distractors=min(distractors, 40), seed=7, size=240)
        build_synth(folder / "generated", settings, workers=1)
        core = folder / "generated" / "ilias_core"
        found = []
        for tar in sorted((folder / "generated" / "yfcc100m").glob("*.tar")):
            with TarReader(tar) as reader:
                for key, data in reader:
                    found.append(folder / f"{key}.jpg")
                    found[-1].write_bytes(data)
    chosen = folder / "collector"
    for directory in sorted(core.iterdir())[:objects]:
        if directory.is_dir():
            shutil.copytree(directory, chosen / directory.name)
    return chosen, list(islice(cycle(found), distractors))


def metadata_line(number: int, photo: str, secret: str, *, video: bool = False) -> tuple[bytes, str]:
    """Return a line of the published metadata in its 25 columns, and the download URL in it."""
    download = f"http://farm8.staticflickr.com/7205/{photo}_{secret}.jpg"
    fields = [
        str(number), photo, hash_of(download), "48600072071@N01", "doctor+paradox", "2012-02-16 09:56:37.0",
        "1331840483", "Canon+PowerShot+ELPH+310+HS", "a+title", "", "", "", "", "", "",
        f"http://www.flickr.com/photos/48600072071@N01/{photo}/", download, "Attribution License",
        "http://creativecommons.org/licenses/by/2.0/", "7205", "8", secret, "8cbdb8fb7c", "jpg", "1" if video else "0",
    ]  # fmt: skip
    return "\t".join(fields).encode(), download


def bomb() -> bytes:
    """A PNG of a few KB that claims 60,000 x 60,000 pixels."""
    data = io.BytesIO()
    Image.new("1", (16, 16)).save(data, "PNG")
    png = bytearray(data.getvalue())
    import struct
    import zlib

    png[16:24] = struct.pack(">II", 60_000, 60_000)
    png[29:33] = struct.pack(">I", zlib.crc32(bytes(png[12:29])))
    return bytes(png)


def _faults(data: bytes, number: int) -> tuple[list[Fault], Fault | None]:
    """Return what goes wrong once and what goes wrong always with one image: every kind in turn."""
    once: list[list[Fault]] = [
        [says(503)], [says(429, Retry_After="0")], [resets(200)], [truncates(len(data) // 2)], [garbage],
        [stalls(100)], [says(500), resets(0)],
    ]  # fmt: skip
    ever: list[Fault] = [
        says(404), says(410), says(403), serves(b"<html><body>Sorry</body></html>"),
        serves(b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'), serves(b""),
        serves(data[: len(data) // 2]), serves(bomb()), endless,
        says(302, Location="http://169.254.169.254/latest/meta-data"), says(302, Location="http://10.0.0.1/a.jpg"),
        serves(bytes(np.random.default_rng(number).integers(0, 256, 500, np.uint8))),
    ]  # fmt: skip
    kind = number % (len(once) + len(ever))
    return (once[kind], None) if kind < len(once) else ([], ever[kind - len(once)])


def make_raw(
    folder: Path, photographs: Path | None, *, objects: int, distractors: int, faulty: float = 0.2, seed: int = 0
) -> Raw:
    """Make it; a fifth of the photographs has something wrong at Flickr, and half of these at S3 as well."""
    folder.mkdir(parents=True, exist_ok=True)
    collector, files = pictures_of(folder, photographs, objects=objects, distractors=distractors)
    draw = np.random.default_rng(seed)
    pages: dict[str, bytes] = {}
    faults: dict[str, list[Fault]] = {}
    always: dict[str, Fault] = {}
    good: set[str] = set()
    lines: list[bytes] = []
    wrong = 0
    for number, file in enumerate(files):
        photo, secret = str(6_985_000_000 + number), f"{number + 1:010x}"
        line, download = metadata_line(len(lines), photo, secret)
        lines.append(line)
        data = original_of(file, number)
        flickr = medium_url("7205", photo, secret).replace(FLICKR, "/flickr")
        s3 = s3_url(hash_of(download)).replace(S3, "/s3")
        pages[flickr] = pages[s3] = data
        pages[download.replace("http://farm8.staticflickr.com", "/farm")] = data
        good.add(photo)
        if draw.random() < faulty:
            once, ever = _faults(data, wrong)
            wrong += 1
            if once:
                faults[flickr] = once
            if ever is not None:
                always[flickr] = ever
                always[download.replace("http://farm8.staticflickr.com", "/farm")] = ever
                if wrong % 2:
                    always[s3] = ever
                    good.discard(photo)
        if number % 11 == 5:
            lines.append(metadata_line(len(lines), str(7_000_000_000 + number), secret, video=True)[0])
    lines.insert(3, b"a line\tthat is broken")
    metadata = folder / "yfcc100m_dataset.bz2"
    metadata.write_bytes(bz2.compress(b"\n".join(lines) + b"\n"))
    taxonomy = folder / "taxonomy.csv"
    names = sorted(path.name for path in collector.iterdir())
    lines_of_it = [f"{name},product,{'box' if number % 2 else 'can'}," for number, name in enumerate(names)]
    taxonomy.write_text("\n".join(["object,coarse,mid,fine", *lines_of_it]) + "\n")
    return Raw(metadata, len(files), frozenset(good), pages, faults, always, collector, taxonomy)


def original_of(file: Path, number: int) -> bytes:
    """Return a picture as a photographer may have left it: larger, turned by EXIF, with GPS, PNG, grey."""
    kind = number % 6
    if kind == 0:
        return file.read_bytes()
    with Image.open(file) as image:
        image.load()
        out = io.BytesIO()
        if kind == 1:
            image.resize((image.width * 2, image.height * 2)).save(out, "JPEG", quality=80, subsampling=2)
        elif kind == 2:
            exif = Image.Exif()
            exif[0x0112], exif[0x0110] = 6, "Canon EOS 450D"
            exif.get_ifd(0x8825)[1] = "N"
            image.transpose(Image.Transpose.ROTATE_90).save(out, "JPEG", quality=95, exif=exif)
        elif kind == 3:
            image.save(out, "PNG")
        elif kind == 4:
            image.convert("L").save(out, "JPEG", quality=85)
        else:
            image.save(out, "JPEG", quality=70, progressive=True)
        return out.getvalue()


def serve(raw: Raw) -> Iterator[FaultyServer]:
    """Serve it, with its faults."""
    with FaultyServer() as server:
        server.files.update(raw.pages)
        server.faults.update({path: list(faults) for path, faults in raw.faults.items()})
        server.always.update(raw.always)
        yield server
