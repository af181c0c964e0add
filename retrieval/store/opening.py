"""The store that a setting names: a folder's path, or the URL of an object store."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from retrieval.store.base import ReadableStore, Store
from retrieval.store.directory import ReadableDirectory
from retrieval.store.location import is_url
from retrieval.store.writing import DirectoryStore


def open_readable(location: str) -> ReadableStore:
    """The store for the files program; it does nothing yet."""
    if not is_url(location):
        return ReadableDirectory(Path(location))
    # What an object store needs is large: only who has one pays for it.
    from retrieval.store.bucket import Bucket
    from retrieval.store.objects import ReadableObjects

    return ReadableObjects(Bucket(location))


def open_store(location: str) -> Store:
    """The store for the collector; `start` it after the fork."""
    if not is_url(location):
        return DirectoryStore(Path(location))
    from retrieval.store.bucket import Bucket
    from retrieval.store.objects_writing import ObjectStore

    return ObjectStore(Bucket(location))


def open_record(location: str) -> Callable[[str], None] | None:
    """What keeps one line after the other, each as an object that is created and nothing else.

    Args:
        location: URL of an object store; nothing is kept when it is empty.
    """
    if not location:
        return None
    from retrieval.store.bucket import Bucket

    bucket = Bucket(location)

    def keep(line: str) -> None:
        day, time = datetime.now(UTC).strftime("%Y/%m/%d %H%M%S.%f").split()
        bucket.create(f"{day}/{time}-{token_hex(4)}.json", line.encode())

    return keep
