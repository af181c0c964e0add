"""What pods had to drop before it was shipped, as far as their reports name it."""

from typing import Any

from retrieval.store.base import ReadableStore
from retrieval.stored_reports import load_stored


def missing(store: ReadableStore, namespace: str, capture: str) -> list[dict[str, Any]]:
    """The gaps in the files of a capture, of all its pods, for people."""
    found: list[dict[str, Any]] = []
    for stream in store.streams(namespace, capture):
        stored, meta = load_stored(store.report(stream)), store.meta(stream)
        if stored is not None and meta is not None:
            owner = {"pod": meta.pod, "node": meta.node}
            found += ({**owner, **gap._asdict()} for gap in stored.report.lost.gaps)
    return found
