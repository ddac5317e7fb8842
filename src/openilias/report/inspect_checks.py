"""Explaining what ``ilias data verify`` keeps."""

from __future__ import annotations

from collections import Counter

from openilias.core.findings import SEVERITIES
from openilias.core.manifests import read_manifest
from openilias.data import verify
from openilias.report.inspect_values import Explanation, Look


def explain_verification(look: Look) -> Explanation:
    """Explain the folder of a verification.

    Raises:
        OpenIliasError: its manifest is damaged.
    """
    manifest = read_manifest(look.path / verify.MANIFEST, kind=verify.KIND)
    try:
        counts = {str(name): int(count) for name, count in manifest["counts"].items()}
        found = Counter[str]()
        for kind in manifest["kinds"]:
            found[str(kind["severity"])] += int(kind["count"])
        kinds = {f"{kind['severity']} {kind['kind']}": int(kind["count"]) for kind in manifest["kinds"]}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise look.refuse("The manifest of this verification is damaged.", fix="Verify again.") from None
    total = ", ".join(f"{found[severity]} {severity}s" for severity in SEVERITIES)
    made_from = manifest["made_from"]
    facts = {"benchmark": made_from.get("benchmark"), "depth": made_from.get("depth"), **counts, **kinds}
    return Explanation("verification", total, facts)
