"""What lies in a folder of a server: the index page of a web server, or the tree of a Hugging Face hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from openilias.core.errors import OpenIliasError
from openilias.data.http import Client, RequestError
from openilias.data.published_places import PublishedFile, Source, is_plain

_MOST_BYTES = 2**25  # of a page
_MOST_SIZE = 2**63  # of a file that is listed
_MOST_PAGES = 2000
_DEEPEST = 6


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def links_below(page: str, folder: str) -> list[str]:
    """Return the names that an index page links to right below its folder; those of folders end with a slash.

    Links to elsewhere are left out, whatever they are: other hosts, folders above, orders of the page, scripts.

    Args:
        page: HTML.
        folder: its URL, with a slash at its end.
    """
    parser = _Links()
    parser.feed(page)
    parser.close()
    base = urlsplit(folder)
    names: dict[str, None] = {}
    for link in parser.found:
        try:
            target = urlsplit(urljoin(folder, link.strip()))
        except ValueError:
            continue
        if (target.scheme, target.netloc) != (base.scheme, base.netloc) or target.query:
            continue
        if not unquote(target.path).startswith(unquote(base.path)):
            continue
        name = unquote(target.path)[len(unquote(base.path)) :]
        if is_plain(name.removesuffix("/")) and "/" not in name.removesuffix("/"):
            names[name] = None
    return sorted(names)


async def files_of_folder(client: Client, source: Source, folder: str) -> list[PublishedFile]:
    """List the files of a folder of a web server, and those of the folders below.

    Raises:
        RequestError: a page does not come.
    """
    files: list[PublishedFile] = []
    waiting, pages = [folder], 0
    while waiting:
        here = waiting.pop(0)
        pages += 1
        if pages > _MOST_PAGES:
            raise RequestError(f"{folder}/ has more than {_MOST_PAGES} folders", again=False)
        url = f"{source.url(here)}/"
        page, _ = await client.text(url, name=f"{here}/", most=_MOST_BYTES)
        for name in links_below(page, url):
            path = f"{here}/{name.removesuffix('/')}"
            if not name.endswith("/"):
                files.append(PublishedFile(path, source.url(path)))
            elif path.count("/") < _DEEPEST:
                waiting.append(path)
    return sorted(files, key=lambda file: file.path)


async def files_of_hub(client: Client, source: Source, folder: str, *, recursive: bool) -> list[PublishedFile]:
    """List the files of a folder of a hub with their sizes, and the SHA-256 of the large ones.

    Raises:
        RequestError: a page does not come.
        OpenIliasError: a page is no list.
    """
    url: str | None = source.tree(folder, recursive=recursive)
    host = urlsplit(source.base).netloc
    files: dict[str, PublishedFile] = {}
    for _ in range(_MOST_PAGES):
        try:
            text, headers = await client.text(url or "", name=f"list of {folder or '/'}", most=_MOST_BYTES)
        except RequestError as error:
            if error.status == 404:  # there is no such folder
                return []
            raise
        files |= {file.path: file for file in _entries(text, source, where=url or "")}
        url = _next(headers.get("Link", ""), url or "")
        if url is None:
            return sorted(files.values(), key=lambda file: file.path)
        if urlsplit(url).netloc != host:
            raise RequestError(f"its list goes on at another host: {url[:120]}", again=False)
    raise RequestError(f"its list has more than {_MOST_PAGES} pages", again=False)


def _next(header: str, url: str) -> str | None:
    for target, rest in re.findall(r"<([^<>]*)>([^<]*)", header):
        if re.search(r";\s*rel=\"?next\"?", rest):
            return str(urljoin(url, target))
    return None


def _entries(text: str, source: Source, *, where: str) -> Iterator[PublishedFile]:
    try:
        entries = json.loads(text)
        if not isinstance(entries, list):
            raise TypeError
        for entry in entries:
            if entry["type"] == "file" and is_plain(entry["path"]):
                lfs: Any = entry.get("lfs") or {}
                sha256 = lfs.get("oid")
                if sha256 is not None and re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
                    raise TypeError
                size = int(lfs.get("size", entry["size"]))
                if not 0 <= size < _MOST_SIZE:
                    raise TypeError
                yield PublishedFile(str(entry["path"]), source.url(entry["path"]), size, sha256)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise OpenIliasError(
            "This is no list of files of a hub.", where=where, fix="Use --source portal, or check the address."
        ) from None
