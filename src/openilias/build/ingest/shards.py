"""A shard while it is made: its lock, its spool, and how both become a tar and a table."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from openilias.build.ingest.plan import PlannedShard
from openilias.build.ingest.settings import SHARDS
from openilias.build.ingest.spool import Spool
from openilias.build.stored import STORED, StoredImage, read_rows, rows_file, write_rows
from openilias.core.errors import OpenIliasError
from openilias.core.files import atomic_path, owned, remove_leftovers_of
from openilias.images.tars import TarReader, image_name, write_tar

_SPOOL = "rows.spool"


class Places:
    """Where the files of the shards of a set are."""

    def __init__(self, root: Path, name: str) -> None:
        self.root, self._name = root, name
        self.state = root / "build" / "ingest"

    def name(self, shard: PlannedShard) -> str:
        """Return the name of a shard."""
        return f"{self._name}_{shard.number:04d}"

    def tar(self, shard: PlannedShard) -> Path:
        """Return the tar of a shard."""
        return self.root / SHARDS / f"{self.name(shard)}.tar"

    def rows(self, shard: PlannedShard) -> Path:
        """Return the table of a shard, which is written last."""
        return rows_file(self.root, self.name(shard))

    def work(self, shard: PlannedShard) -> Path:
        """Return the folder of a shard that is being made."""
        return self.state / self.name(shard)

    def is_made(self, shard: PlannedShard) -> bool:
        """Tell whether a shard has its tar and its table."""
        return self.rows(shard).is_file()

    def is_begun(self, shard: PlannedShard) -> bool:
        """Tell whether there is work on a shard that is not in its tar and its table yet."""
        return self.work(shard).is_dir()


class ShardWork:
    """A shard of this process: what is done of it, and its end."""

    def __init__(self, places: Places, shard: PlannedShard) -> None:
        """Take a shard.

        Raises:
            InUseError: another process is making it.
        """
        self.shard, self._places = shard, places
        self.left = 0  # rows that are being worked on
        self.fed = False  # whether all of its rows have been given out
        self.ended = False
        folder = places.work(shard)
        with ExitStack() as stack:
            while True:
                folder.mkdir(parents=True, exist_ok=True)
                lock = ExitStack()
                try:
                    before = folder.stat().st_ino
                    lock.enter_context(owned(folder, output=places.tar(shard)))
                    if folder.stat().st_ino == before:
                        break
                except FileNotFoundError:
                    pass
                lock.close()  # the one before has just removed it, and another may have made it anew
            stack.push(lock)
            self.spool = Spool(folder / _SPOOL, shard.rows)
            stack.callback(self.spool.close)
            self._held = stack.pop_all()

    def close(self) -> None:
        """Let it go; twice does no harm. What is of no use to anybody is removed."""
        folder = self._places.work(self.shard)
        if not self.ended and not len(self.spool) and folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
        self._held.close()

    def finish(self) -> None:
        """Write the tar and the table, and remove what they were made from. Killed in the middle, it is done again.

        Rows that are not in the spool are those of the shard as it is.

        Raises:
            OpenIliasError: the shard as it is does not fit its table, or the disk fails.
        """
        places, shard = self._places, self.shard
        tar, rows = places.tar(shard), places.rows(shard)
        for target in (tar, rows):
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers_of(target)
        if len(self.spool) == shard.rows:
            _write_tar(tar, self._members())
            write_rows(rows, (self.spool.read(row, image=False)[0] for row in range(shard.rows)))
        elif len(self.spool):
            with TarReader(tar) as old:
                _write_tar(tar, self._merged(old, rows))
            write_rows(rows, self._rows(rows))
        shutil.rmtree(places.work(shard))
        self.ended = True

    def _members(self) -> Iterator[tuple[str, bytes]]:
        for row in range(self.shard.rows):
            image, jpeg = self.spool.read(row)
            if image.status == STORED:
                yield image_name(image.id), jpeg

    def _rows(self, table: Path) -> Iterator[StoredImage]:
        count = 0
        for row, old in enumerate(read_rows(table)):
            count += 1
            yield self.spool.read(row, image=False)[0] if row < self.shard.rows and row in self.spool else old
        if count != self.shard.rows:
            raise OpenIliasError(
                f"This table has {count} rows instead of {self.shard.rows}.", where=table, fix="Put the right one back."
            )

    def _merged(self, old: TarReader, table: Path) -> Iterator[tuple[str, bytes]]:
        """Yield the members of a shard of which some rows were asked for again."""
        kept = {member.key: at for at, member in enumerate(old.index)}
        for row, image in enumerate(self._rows(table)):
            if image.status != STORED:
                continue
            if row in self.spool:
                data = self.spool.read(row)[1]
            else:
                data = old.read(kept[image.id]) if image.id in kept else b""
                if hashlib.sha256(data).hexdigest() != image.sha256:
                    raise OpenIliasError(
                        f"The image {image.id!r} of this shard is not what its table says.",
                        where=old.path,
                        fix="Put the right shard back, or remove it and its table in rows/ to make it anew.",
                    )
            yield image_name(image.id), data


def _write_tar(target: Path, members: Iterator[tuple[str, bytes]]) -> None:
    with atomic_path(target) as temporary:
        write_tar(temporary, members)


def rows_with(table: Path, statuses: frozenset[str]) -> npt.NDArray[np.bool_]:
    """Return (R,) which rows of a shard have one of some statuses; only that column is read.

    Raises:
        OpenIliasError: the table is damaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        column = pq.read_table(table, columns=["status"]).column("status")
    except (pa.ArrowException, OSError) as error:
        raise OpenIliasError(f"This table cannot be read: {error}.", where=table, fix="Make it again.") from None
    found: npt.NDArray[np.bool_] = pc.is_in(column, pa.array(sorted(statuses), pa.string())).to_numpy()
    return found
