"""The store that a setting names: a folder's path, or the URL of an object store."""

from pathlib import Path

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
