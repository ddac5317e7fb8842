"""What is known of the files of a folder: digests, each with the size and time of the file that had it.

One small file each, so that many processes may write them, and none of the data is read twice to know it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from openilias.core.errors import OpenIliasError
from openilias.core.files import read_json, write_json

RECORDS = ".downloads"
_ENDING = ".json"


@dataclass(frozen=True)
class DigestRecord:
    """What is known of one file.

    Attributes:
        sha256: what it should be.
        published: whether that digest is published; else it is that of the bytes that came.
        size, changed: of the file when it was digested, in bytes and nanoseconds.
        wrong: it had another digest then.
        kept: a tar stays although it is unpacked.
    """

    sha256: str
    published: bool
    size: int
    changed: int
    wrong: bool = False
    kept: bool = False


class Records:
    """The records of a folder; paths are relative to it, with slashes."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.folder = out / RECORDS

    def read(self, path: str) -> DigestRecord | None:
        """Return what is recorded of a path; a damaged record is none."""
        file = self._file(path)
        if not file.is_file():
            return None
        try:
            value = read_json(file)
            record = DigestRecord(**value)
        except (OpenIliasError, TypeError):
            return None
        kinds = (str, bool, int, int, bool, bool)
        return record if all(type(v) is kind for v, kind in zip(asdict(record).values(), kinds, strict=True)) else None

    def of_file(self, path: str) -> DigestRecord | None:
        """Return the record of the very file that is there."""
        record = self.read(path)
        if record is None or not (self._out / path).is_file():
            return None
        facts = (self._out / path).stat()
        return record if (record.size, record.changed) == (facts.st_size, facts.st_mtime_ns) else None

    def write(self, path: str, sha256: str, *, published: bool, wrong: bool = False, kept: bool = False) -> None:
        """Record the digest that the file that is there should have, and whether it has it."""
        facts = (self._out / path).stat()
        record = DigestRecord(sha256, published, facts.st_size, facts.st_mtime_ns, wrong, kept)
        write_json(self._file(path), asdict(record))

    def _file(self, path: str) -> Path:
        return self.folder / f"{path}{_ENDING}"
