"""Text queries: a model describes each object, a person corrects it, and the set gets the text.

Supplement of the paper, "Text query generation", and Fig. B. ``docs/caption.md`` is for users.
"""

from openilias.build.caption.answers import STATUSES, Answer, read_answers
from openilias.build.caption.apply import Applied, apply_captions
from openilias.build.caption.ask import Asked, ask_all, open_questions
from openilias.build.caption.captions import Caption, read_captions, write_captions
from openilias.build.caption.decisions import OpenDecisions, open_decisions
from openilias.build.caption.endpoint import Endpoint
from openilias.build.caption.estimate import Estimate, Prices, estimate
from openilias.build.caption.local import Local
from openilias.build.caption.place import Place, place_of
from openilias.build.caption.questions import PROMPT, Question, Settings, questions_of
from openilias.build.caption.review import Taken, take_captions, write_review

__all__ = [
    "PROMPT",
    "STATUSES",
    "Answer",
    "Applied",
    "Asked",
    "Caption",
    "Endpoint",
    "Estimate",
    "Local",
    "OpenDecisions",
    "Place",
    "Prices",
    "Question",
    "Settings",
    "Taken",
    "apply_captions",
    "ask_all",
    "estimate",
    "open_decisions",
    "open_questions",
    "place_of",
    "questions_of",
    "read_answers",
    "read_captions",
    "take_captions",
    "write_captions",
    "write_review",
]
