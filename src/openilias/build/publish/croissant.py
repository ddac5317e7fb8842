"""The metadata of a set as Croissant (ML Commons, JSON-LD), for search engines and loaders of data sets."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from openilias.build.publish.facts import Facts
from openilias.build.publish.outputs import Done
from openilias.build.publish.rows import UNKNOWN
from openilias.build.publish.settings import PublishSettings

_TYPES = {".tar": "application/x-tar", ".parquet": "application/vnd.apache.parquet", ".json": "application/json",
          ".txt": "text/plain", ".gz": "application/gzip", ".md": "text/markdown", ".html": "text/html"}  # fmt: skip
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(facts: Facts, settings: PublishSettings, files: Iterable[Done], *, description: str | None) -> str:
    """Return the metadata; needs ``url_base``: the format wants addresses."""
    base = settings.url_base
    if base is None:
        raise AssertionError("there is no address")
    licences = sorted({one.url or one.name for one in facts.licences if one.name != UNKNOWN})
    value = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": settings.name,
        "description": description or _description(facts),
        "version": settings.version,
        "url": f"{base}/",
        "license": licences,
        "distribution": [_file(done, base) for done in files],
    }
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _description(facts: Facts) -> str:
    return (
        f"A test set for instance-level image retrieval: {facts.objects} objects with {facts.image_queries} image "
        f"queries, {facts.text_queries} text queries and {facts.positives} positives, among {facts.distractors} "
        "distractors."
    )


def _file(done: Done, base: str) -> dict[str, Any]:
    ending = done.name[done.name.rfind(".") :]
    return {
        "@type": "cr:FileObject",
        "@id": done.name,
        "name": done.name,
        "contentUrl": f"{base}/{done.name}",
        "contentSize": f"{done.size} B",
        "encodingFormat": _TYPES.get(ending, "application/octet-stream"),
        "sha256": done.sha256,
    }
