"""The questions of a datasheet, after "Datasheets for Datasets" (Gebru et al., 2021), in short; each has a key."""

from __future__ import annotations

QUESTIONS: dict[str, dict[str, str]] = {
    "Motivation": {
        "purpose": "For what purpose was it made? Which gap was to be filled?",
        "creators": "Who made it, and on behalf of whom?",
        "funding": "Who paid for it?",
        "motivation-other": "Anything else?",
    },
    "Composition": {
        "instances": "What do the instances represent?",
        "count": "How many instances are there of each kind?",
        "sample": "Is it everything, or a sample of something larger? How representative is it?",
        "data": "What data does each instance consist of?",
        "labels": "Is there a label or target of each instance?",
        "missing": "Is information missing from some instances?",
        "relationships": "Are relationships between instances made explicit?",
        "splits": "Are there recommended splits?",
        "errors": "Are there errors, noise or redundancies?",
        "self-contained": "Is it self-contained, or does it rely on other resources?",
        "confidential": "Does it hold data that might be confidential?",
        "offensive": "Does it hold data that might be offensive or cause anxiety?",
        "subpopulations": "Does it identify subpopulations of people, as by age or gender?",
        "identifiable": "Can persons be identified in it, directly or together with other data?",
        "sensitive": "Does it hold data that might be sensitive, as on health, beliefs or places?",
        "composition-other": "Anything else?",
    },
    "Collection process": {
        "acquired": "How were the data acquired? Were they observed, reported or inferred, and how validated?",
        "mechanisms": "With which devices, people or programs were they collected?",
        "sampling": "If it is a sample, by which strategy was it drawn?",
        "collectors": "Who took part in the collection, and how were they compensated?",
        "timeframe": "Over which time were the data collected, and when were they made?",
        "ethics": "Was there an ethical review?",
        "directly": "Were data on people collected from them directly, or from third parties?",
        "notified": "Were the people notified?",
        "consent": "Did they consent, and to what?",
        "revoke": "Can they revoke their consent?",
        "impact": "Was the potential impact on the people analysed?",
        "collection-other": "Anything else?",
    },
    "Preprocessing, cleaning, labelling": {
        "processing": "What was done to the data?",
        "raw": "Were the raw data kept, and can they be had?",
        "software": "Is the software of the processing available?",
        "processing-other": "Anything else?",
    },
    "Uses": {
        "used": "What has it been used for already?",
        "papers": "Where are the papers or systems that use it listed?",
        "tasks": "For what else could it be used?",
        "future": "Does something about how it was made affect future uses? Could harm be avoided?",
        "not-for": "For what should it not be used?",
        "uses-other": "Anything else?",
    },
    "Distribution": {
        "third-parties": "Will it be given to third parties?",
        "how": "How will it be distributed? Does it have a DOI?",
        "when": "When will it be distributed?",
        "licence": "Under which licence or terms of use?",
        "restrictions": "Have third parties imposed restrictions on the data?",
        "export": "Do export controls or other rules apply?",
        "distribution-other": "Anything else?",
    },
    "Maintenance": {
        "host": "Who hosts and maintains it?",
        "contact": "How can they be contacted?",
        "erratum": "Is there an erratum?",
        "updates": "Will it be updated? How often, by whom, and how will users hear of it?",
        "retention": "Are there limits on how long data on people may be kept?",
        "older": "Will older versions be kept?",
        "extend": "Can others extend or correct it, and how?",
        "maintenance-other": "Anything else?",
    },
}
OPTIONAL = frozenset(key for part in QUESTIONS.values() for key in part if key.endswith("-other"))
"""Questions that are left away where nobody answers them."""
KEYS = tuple(key for part in QUESTIONS.values() for key in part)
