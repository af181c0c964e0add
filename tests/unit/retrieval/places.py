"""Places where a store can be: a folder, and a prefix of an S3-speaking server."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from retrieval.store.base import ReadableStore, Store
from retrieval.store.directory import ReadableDirectory
from retrieval.store.object_streams import Times
from retrieval.store.objects import ReadableObjects
from retrieval.store.objects_writing import ObjectStore
from retrieval.store.writing import DirectoryStore
from tests.unit.retrieval.s3 import S3Server


class Place(Protocol):
    """One place, and what opens it as programs do."""

    def open(self) -> Store: ...

    def open_readable(self) -> ReadableStore: ...

    def anew(self) -> Self:
        """Another one of its kind, empty."""

    def close(self) -> None:
        """Close all that was opened."""


@dataclass
class Folder:
    root: Path
    opened: list[DirectoryStore] = field(default_factory=list)

    def open(self) -> DirectoryStore:
        store = DirectoryStore(self.root, commit_seconds=0.002)
        store.start()
        self.opened.append(store)
        return store

    def open_readable(self) -> ReadableDirectory:
        return ReadableDirectory(self.root)

    def anew(self) -> Self:
        return type(self)(Path(tempfile.mkdtemp(dir=self.root.parent)))

    def close(self) -> None:
        for store in self.opened:
            store.close()


@dataclass
class Prefix:
    server: S3Server
    url: str
    opened: list[ObjectStore] = field(default_factory=list)

    def open(self) -> ObjectStore:
        # Tallies are looked up each time: tests do in a moment what takes minutes otherwise.
        store = ObjectStore(self.server.bucket(self.url), Times(tally_seconds=0, look_seconds=0))
        self.opened.append(store)
        return store

    def open_readable(self) -> ReadableObjects:
        return ReadableObjects(self.server.bucket(self.url), look_seconds=0)

    def anew(self) -> Self:
        return type(self)(self.server, self.server.new_url())

    def close(self) -> None:
        for store in self.opened:
            store.close()
