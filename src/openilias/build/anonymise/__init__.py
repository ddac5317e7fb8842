"""Faces and licence plates in the pictures of a set: found, reviewed by a person, made unrecognisable, undone.

Supplement of the paper, "Downloading and storing images": "All personal details (e.g. human faces, license plates)
... are either blurred or cropped." ``docs/anonymise.md`` is for users.
"""

from openilias.build.anonymise.apply import Applied, ApplySettings, apply_marks, undo_marks
from openilias.build.anonymise.decisions import OpenDecisions, open_decisions
from openilias.build.anonymise.find import FindSettings, Found, find_marks
from openilias.build.anonymise.marks import Mark, read_marks, write_marks
from openilias.build.anonymise.place import Place
from openilias.build.anonymise.review import take_decisions, write_review

__all__ = [
    "Applied",
    "ApplySettings",
    "FindSettings",
    "Found",
    "Mark",
    "OpenDecisions",
    "Place",
    "apply_marks",
    "find_marks",
    "open_decisions",
    "read_marks",
    "take_decisions",
    "undo_marks",
    "write_marks",
    "write_review",
]
