"""A small set as the steps of ``ilias build`` leave it: images that conform, rows, and private things in ``build/``."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

from PIL import Image

from openilias.build.anonymise import ApplySettings, FindSettings, apply_marks, find_marks
from openilias.build.normalise import Normalised, NormaliseSettings, normalise
from openilias.build.stored import StoredImage, rows_file, write_rows
from openilias.data import read_ilias
from openilias.images.tars import TarReader, write_tar

CANARY = "c4n4ry"  # stands in everything that is private
CC = "https://creativecommons.org/licenses/by/2.0/"


def make_set(root: Path, tiny_root: Path) -> Path:
    """Make a set of the tiny benchmark that may be published."""
    shutil.copytree(tiny_root / "ilias_core", root / "ilias_core")
    shutil.copytree(tiny_root / "image_ids", root / "image_ids")
    shutil.copy(tiny_root / "taxonomy.json", root)
    benchmark = read_ilias(tiny_root)
    rows = []
    for number, item in enumerate((*benchmark.image_queries, *benchmark.positives)):
        path = root / "ilias_core" / item
        made = normalise(path.read_bytes(), NormaliseSettings(), where=item)
        path.write_bytes(made.jpeg)
        rows.append(row_of(item, made, camera=("E-510", "C-4040")[number % 2], author=f"Zoë {number % 3}"))
    first = root / "ilias_core" / benchmark.positives[0]
    first.with_name(f"{first.stem}_url.txt").write_text("https://photos.example/1\n")
    # Images of an object that was rejected: not published, and neither are their rows.
    rows.append(StoredImage(f"{CANARY}_900/pos/P900_00.jpg", "stored", sha256="0" * 64, bytes=1, author=CANARY))
    write_rows(rows_file(root, "core"), rows)
    (root / "yfcc100m").mkdir()
    for shard in benchmark.distractor_shards:
        make_shard(root, shard.name, shard.tar)
    keys = [line.partition("/")[2] for line in all_distractors(root)]
    (root / "image_ids" / "mini_ilias_yfcc100m_ids.txt").write_text("".join(f"{key}\n" for key in keys[::2]))
    (root / "image_ids" / "mini_random_0_ids.txt").write_text("".join(f"{key}\n" for key in keys[1::3]))
    make_private(root)
    return root


def row_of(item: str, made: Normalised, **known: str) -> StoredImage:
    return StoredImage(
        item, "stored", url=f"https://photos.example/{made.sha256[:8]}.jpg", licence="CC BY 2.0", licence_url=CC,
        page_url="https://photos.example/page", taken="2013-05-06 07:08:09", width=made.width, height=made.height,
        original_width=made.original_size[0], original_height=made.original_size[1], format=made.format,
        bytes=len(made.jpeg), sha256=made.sha256, hash=made.hash, reencoded=made.reencoded,
        notes=f"note {CANARY}", where=f"/home/{CANARY}/raw/{item}", **known,
    )  # fmt: skip


def make_shard(root: Path, name: str, tar: Path | None) -> None:
    assert tar is not None
    members, rows = [], []
    with TarReader(tar) as reader:
        for number, (key, data) in enumerate(reader):
            made = normalise(data, NormaliseSettings(), where=key)
            members.append((f"{key}.jpg", made.jpeg))
            author = ("=cmd|' /C calc'!A0", 'A, "B"\nC', "plain")[number % 3]
            rows.append(row_of(key, made, camera="Canon", author=author))
    rows.append(StoredImage(f"lost{CANARY}", "404", url="https://photos.example/x", notes=CANARY, where=f"/{CANARY}"))
    write_tar(root / "yfcc100m" / name, members)
    write_rows(rows_file(root, name.removesuffix(".tar")), rows)


def all_distractors(root: Path) -> list[str]:
    found = []
    for tar in sorted((root / "yfcc100m").glob("*.tar")):
        with TarReader(tar) as reader:
            found += [f"{tar.name}/{key}" for key, _ in reader]
    return found


def make_private(root: Path) -> None:
    build = root / "build"
    names = sorted(path.name for path in (root / "ilias_core").iterdir())
    for step in ("ingest", "collect", "caption", "clutter", "mini"):
        (build / step).mkdir(parents=True)
    image = sorted((root / "ilias_core").rglob("P*.jpg"))[0]
    item = image.relative_to(root / "ilias_core").as_posix()
    find_marks(root, FindSettings(faces=()), workers=1)
    write(build / "anonymise" / "boxes.csv", "image,kind,x,y,width,height,score,source,status",
          f"{item},face,11,12,33,34,0.9,{CANARY},confirmed", f"{item},plate,1,2,3,4,0.9,{CANARY},rejected")  # fmt: skip
    apply_marks(root, ApplySettings())
    write(build / "collect" / "objects.csv", "object,status,reason,collector,evidence,first_public,cut_off,category",
          *(f"{name},accepted,,{CANARY},https://{CANARY}.example,2019-01-02,2014-05-01,x" for name in names),
          f"{CANARY}_900,rejected,{CANARY} a copy,{CANARY},{CANARY},2010-01-01,2014-05-01,x")  # fmt: skip
    write(build / "caption" / "captions.csv", "object,category,status,text,image,model,raw",
          *(f"{name},x,accepted,words {CANARY},,," for name in names))  # fmt: skip
    (build / "caption" / "answers.jsonl").write_text(json.dumps({"raw": f"sk-{CANARY}"}))
    made_from = {"model": "some-vlm", "temperature": 0, "prompt": "Describe | the <b>object</b>.", "api_key": CANARY,
                 "endpoint": f"http://{CANARY}", "source": f"/home/{CANARY}", "list": [f"/home/{CANARY}/x", "y"],
                 "nested": {"folder": CANARY, "quality": 90}}  # fmt: skip
    (build / "caption" / "caption.json").write_text(json.dumps({"kind": "captions", "made_from": made_from}))
    (build / "ingest" / "broken.json").write_text("{")


def write(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (64, 48), quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
