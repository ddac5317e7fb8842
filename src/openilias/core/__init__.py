"""Errors, ids, fingerprints, manifests, atomic files, the protocol and progress. No mathematics, no pixels."""
