"""The Universal Embedding Dataset (Ypsilantis et al., ICCV 2023): eight data sets to learn one adaptation from.

The images lie as UnED's authors lay them out, ``cars/car_ims``, ``food2k/Food2k_complete`` and so on, in one folder.
What is learned from is said by UnED's own split files (``info_files/<name>/train.json``), or, without them, by the
training lists that each data set is published with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openilias.core.errors import OpenIliasError, first_few
from openilias.data.ilias import IMAGE_ENDINGS
from openilias.data.training import TrainingSet

Rows = Iterator[tuple[str, str]]
"""Path, relative to the folder of all images, and label."""
_CARS_LEARNED = 98
"""Of the 196 classes of CARS196 the first half is learned from (Song et al., CVPR 2016)."""


@dataclass(frozen=True)
class Domain:
    """One data set of UnED.

    Attributes:
        name: as in UnED's files.
        images: of its training split.
        classes: of its training split.
        lists: where its own training list may lie, in the folder of all images.
        read: reads that list.
    """

    name: str
    images: int
    classes: int
    lists: tuple[str, ...]
    read: Callable[[Path, Path], Rows]


def _cars(path: Path, root: Path) -> Rows:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        annotations = loadmat(path, squeeze_me=True)["annotations"]
    except MatReadError as error:
        raise ValueError(str(error)) from None
    for entry in np.atleast_1d(annotations):
        if int(entry["class"]) <= _CARS_LEARNED:
            yield f"cars/{entry['relative_im_path']}", str(int(entry["class"]))


def _sop(path: Path, root: Path) -> Rows:
    for words in _words(path, skip=1, count=4):
        yield f"sop/{words[3]}", words[1]


def _inshop(path: Path, root: Path) -> Rows:
    for name, label, status in _words(path, skip=2, count=3):
        if status == "train":
            yield f"deepfashion/inshop/{name}", label


def _inat(path: Path, root: Path) -> Rows:
    for (name,) in _words(path, skip=0, count=1):
        _, kingdom, species, _ = name.rsplit("/", 3)
        yield f"inat/iNaturalist/{name}", f"{kingdom}/{species}"


def _met(path: Path, root: Path) -> Rows:
    for entry in json.loads(path.read_text(encoding="utf-8")):
        yield f"met/{entry['path']}", str(entry["id"])


def _gldv2(path: Path, root: Path) -> Rows:
    with path.open(encoding="utf-8") as file:  # a landmark may have more images than the csv module takes letters
        header = file.readline().strip()
        if header != "landmark_id,images":
            raise ValueError(f"its first line is {header[:80]!r}, not 'landmark_id,images'")
        for line in file:
            landmark, _, images = line.strip().partition(",")
            for name in images.split():
                yield f"gldv2/images/train/{name[0]}/{name[1]}/{name[2]}/{name}.jpg", landmark


def _food2k(path: Path, root: Path) -> Rows:
    for name, label in _words(path, skip=0, count=2):
        yield f"food2k/Food2k_complete/{name.lstrip('/')}", label


def _rp2k(path: Path, root: Path) -> Rows:
    for folder in sorted(path.iterdir()):
        if folder.is_dir():
            for image in sorted(one for one in folder.iterdir() if one.name.lower().endswith(IMAGE_ENDINGS)):
                yield image.relative_to(root).as_posix(), folder.name


def _words(path: Path, *, skip: int, count: int) -> Iterator[list[str]]:
    """Yield the words of each line; the last may hold blanks."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if number < skip or not line.strip():
                continue
            words = line.split(maxsplit=count - 1)
            if len(words) != count:
                raise OpenIliasError(
                    f"Expected {count} words, found {line.strip()!r}.", where=f"{path}, line {number + 1}"
                )
            yield [word.strip() for word in words]


DOMAINS = (
    Domain("cars", 6346, 78, ("cars/cars_annos.mat",), _cars),
    Domain("sop", 48942, 9054, ("sop/Ebay_train.txt",), _sop),
    Domain(
        *("inshop", 20897, 3198),
        tuple(f"deepfashion/inshop/{place}list_eval_partition.txt" for place in ("", "Eval/")),
        _inshop,
    ),
    Domain(
        *("inat", 273929, 4552),
        tuple(
            f"inat/{place}Inaturalist_train_set1.txt"
            for place in ("", "Inat_dataset_splits/", "iNaturalist/", "iNaturalist/Inat_dataset_splits/")
        ),
        _inat,
    ),
    Domain("met", 397121, 224408, tuple(f"met/{place}MET_database.json" for place in ("", "ground_truth/")), _met),
    Domain("gldv2", 1422914, 73182, tuple(f"gldv2/{place}train_clean.csv" for place in ("", "images/")), _gldv2),
    Domain(
        *("food2k", 472349, 900),
        tuple(f"food2k/{place}train_finetune.txt" for place in ("", "Food2k_label/", "Food2k_complete/")),
        _food2k,
    ),
    Domain("rp2k", 188724, 1074, ("rp2k/all/train",), _rp2k),
)
"""In the order of UnED; the counts are those of its training splits."""


def read_uned(root: Path, *, splits: Path | None = None, only: Sequence[str] = ()) -> TrainingSet:
    """Read what UnED, or a part of it, is learned from; whether the images are there is not looked at.

    Args:
        root: the folder with the images of all data sets.
        splits: UnED's folder of ``<name>/train.json``; without it the training lists of the data sets themselves, of
            which UnED keeps some classes for validation and, of Food2k, half for testing.
        only: names of data sets; all by default.

    Raises:
        OpenIliasError: no such folder, an unknown name, or a list that is missing or not as it is published.
    """
    for folder in (root, splits):
        if folder is not None and not folder.is_dir():
            raise OpenIliasError("There is no such folder.", where=folder, fix="Name the folder of UnED.")
    known = {domain.name: domain for domain in DOMAINS}
    unknown = sorted(set(only) - set(known))
    if unknown:
        raise OpenIliasError(
            f"UnED has no {first_few(unknown)}; it has {', '.join(known)}.", fix="Correct the names of the domains."
        )
    rows = [
        (path, label, domain.name)
        for domain in DOMAINS
        if not only or domain.name in only
        for path, label in (_own_rows(domain, root) if splits is None else _split_rows(domain, splits))
    ]
    ids, labels, domains = zip(*rows, strict=True)
    return TrainingSet(root, ids, labels, domains)


def _own_rows(domain: Domain, root: Path) -> list[tuple[str, str]]:
    path = next((root / place for place in domain.lists if (root / place).exists()), None)
    if path is None:
        raise OpenIliasError(
            f"{domain.name}: its training list is not here; looked for {', '.join(domain.lists)}.",
            where=root,
            fix="Put it there, give UnED's split files with --splits, or leave the data set out with --domains.",
        )
    return _checked(domain, path, lambda: list(domain.read(path, root)))


def _split_rows(domain: Domain, splits: Path) -> list[tuple[str, str]]:
    path = splits / domain.name / "train.json"

    def read() -> list[tuple[str, str]]:
        return [(entry["path"], _label(entry["class_id"])) for entry in json.loads(path.read_text(encoding="utf-8"))]

    return _checked(domain, path, read)


def _label(value: Any) -> str:
    if isinstance(value, list):
        (value,) = value
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"a class_id is a number or text, not {value!r}")
    return str(value)


def _checked(domain: Domain, path: Path, read: Callable[[], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Read a list; whatever is not as it is published is said of the file."""
    try:
        rows = read()
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise OpenIliasError(
            f"{domain.name}: this list is not as it is published: {type(error).__name__}: {error}.",
            where=path,
            fix="Fetch it again.",
        ) from None
    if not rows:
        raise OpenIliasError(f"{domain.name}: this list names no images.", where=path, fix="Fetch it again.")
    return rows


def sample(training: TrainingSet, count: int, *, seed: int) -> TrainingSet:
    """Draw images uniformly, whatever their domain (paper, section 4); they keep their order.

    Args:
        training: what is drawn from.
        count: how many; all, if there are not more.
        seed: of the drawing.
    """
    if count >= len(training):
        return training
    chosen = np.sort(np.random.default_rng(seed).permutation(len(training))[:count])
    columns = ([column[place] for place in chosen] for column in (training.ids, training.labels, training.domains))
    return TrainingSet(training.root, *map(tuple, columns))


def on_disk(training: TrainingSet) -> TrainingSet:
    """Return the set with the names that its files have here.

    Names of Rp2k are Chinese; some programs unpack them escaped, ``#U6d77`` for ``\\u6d77``.

    Raises:
        OpenIliasError: images are missing.
    """
    ids, missing = [], []
    for item in training.ids:
        found = next((name for name in (item, _escaped(item)) if training.path_of(name).is_file()), None)
        ids.append(found or item)
        if found is None:
            missing.append(item)
    if missing:
        raise OpenIliasError(
            f"{len(missing)} of {len(training)} images are not there: {first_few(missing)}.",
            where=training.root,
            fix="Complete the folder; UnED's README says how its images lie.",
        )
    return TrainingSet(training.root, tuple(ids), training.labels, training.domains)


def _escaped(name: str) -> str:
    return "".join(letter if letter.isascii() else f"#U{ord(letter):04x}" for letter in name)
