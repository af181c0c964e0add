"""The routes that give all pods as one pcapng file: `merged.pcapng` and `live.pcapng`."""

import contextlib
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from typing import Final

import flask

from nightcap.contract.captures import BadCapture, PacketCapture
from nightcap.kube.errors import ApiError
from nightcap.pcap.bounded import check_filter
from nightcap.pcap.libpcap import EN10MB
from retrieval.access import CaptureRef, Question
from retrieval.files.catalog import Catalog
from retrieval.files.doorkeeper import Judge
from retrieval.files.merged import Cast, Live, Outside, Title, merged_pieces
from retrieval.files.packets import Filters
from retrieval.files.wanted import BadQuery, Wanted, parse_wanted
from retrieval.store.base import ReadableStore

MAX_LIVE_READERS: Final = 32
"""Each holds one of the program's threads as long as it reads; as many are for the others."""
_OVER: Final = frozenset({"Finished", "Error"})


class StandingYes:
    """Whether a reader to whom yes was said may go on, and whether the capture is over.

    While the API server cannot be asked, what it said last holds.
    """

    def __init__(
        self, judge: Judge, token: str, asked: Question, ref: CaptureRef, capture: PacketCapture
    ) -> None:
        self._judge = judge
        self._token = token
        self._asked = asked
        self._ref = ref
        self._capture = capture

    def holds(self) -> bool:
        """Ask again: the token, the right, and whether the name still means this object."""
        try:
            identity = self._judge.identify(self._token)
            if identity is None or not self._judge.may(identity, self._asked):
                return False
            found = self._judge.find(self._ref)
        except (ApiError, BadCapture):
            return True
        if found is None or found.metadata.uid != self._capture.metadata.uid:
            return False
        self._capture = found
        return True

    def is_over(self) -> bool:
        """Whether the capture records no more, as of the last time that was asked."""
        return (self._capture.status or {}).get("phase") in _OVER


class LiveSeats:
    """How many may read live at once."""

    def __init__(self, count: int = MAX_LIVE_READERS) -> None:
        self._count = count
        self._free = threading.BoundedSemaphore(count)

    def take(self, stack: ExitStack) -> None:
        """Take a seat until the stack is closed; aborts the request when there is none."""
        if not self._free.acquire(blocking=False):
            sentence = (
                f"{self._count} people read live already; try again when one has left, "
                "or fetch merged.pcapng"
            )
            answer = flask.Response(
                f"{sentence}\n", status=503, content_type="text/plain; charset=utf-8"
            )
            answer.headers["Retry-After"] = "10"
            flask.abort(answer)
        stack.callback(self._free.release)


class Streams:
    """Makes the pieces of both answers."""

    def __init__(self, store: ReadableStore, catalog: Catalog, judge: Judge) -> None:
        self._store = store
        self._catalog = catalog
        self._judge = judge

    def wanted(self) -> Wanted:
        """What the request's query says.

        Raises:
            BadQuery: a value is wrong.
        """
        return parse_wanted(flask.request.args.to_dict(flat=False))

    def filters(self, wanted: Wanted, namespace: str, capture: str, stack: ExitStack) -> Filters:
        """The compiled filter.

        Raises:
            BadQuery: it does not compile for any packets of the capture, in libpcap's words.
            Undecided: nobody knows, as this machine is too busy to find out.
        """
        filters = Filters(wanted.filter, _fault_of)
        stack.callback(filters.close)
        metas = map(self._store.meta, self._store.streams(namespace, capture))
        links = {
            link
            for meta in metas
            if meta is not None and wanted.has_pod(meta.pod)
            for link in meta.links.values()
        }
        faults = [filters.fault(link) for link in sorted(links or {EN10MB})]
        if all(faults):
            raise BadQuery(f"filter {wanted.filter!r} does not compile: {faults[0]}")
        return filters

    def merged(
        self, ref: CaptureRef, uid: str, wanted: Wanted, filters: Filters, stack: ExitStack
    ) -> Iterator[bytes] | None:
        """The merged file's pieces; None when no packet is wanted."""
        files = self._catalog.files(ref.namespace, uid)
        pieces = merged_pieces(
            self._store,
            files,
            wanted,
            filters,
            Title(ref.namespace, ref.name),
            Cast(self._judge.services(ref.namespace)),
            stack,
        )
        first = next(pieces, None)
        return None if first is None else chain((first,), pieces)

    def live(
        self,
        standing: StandingYes,
        ref: CaptureRef,
        uid: str,
        wanted: Wanted,
        filters: Filters,
        must_end: Callable[[], bool],
        stack: ExitStack,
    ) -> Iterator[bytes]:
        """The live file's pieces."""
        has_left = leaver()
        live = Live(
            store=self._store,
            namespace=ref.namespace,
            capture_uid=uid,
            wanted=wanted,
            filters=filters,
            title=Title(ref.namespace, ref.name),
            cast=Cast(self._judge.services(ref.namespace)),
            outside=Outside(
                is_allowed=standing.holds,
                is_over=standing.is_over,
                has_left=lambda: has_left() or must_end(),
            ),
            stack=stack,
        )
        return live.pieces()


def leaver() -> Callable[[], bool]:
    """A function that says whether the request's client has closed the connection.

    Nothing is written to a reader of a quiet capture, so that nothing else would tell.
    """
    connection = flask.request.environ.get("gunicorn.socket")
    if connection is None:
        return lambda: False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLRDHUP)

    def has_left() -> bool:
        with contextlib.suppress(OSError):
            return bool(poll.poll(0))
        return True

    return has_left


def _fault_of(expression: str, linktype: int) -> str | None:
    return check_filter(expression, linktype=linktype)
