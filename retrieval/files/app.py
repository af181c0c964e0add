"""The application that people speak to: who they are, what they may, then the bytes.

Every path but the two for health needs a Kubernetes token, also one that leads nowhere;
what exists is told only to those who may have it (`retrieval.access`).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import flask
from werkzeug.exceptions import NotFound

from nightcap.contract import keys
from nightcap.contract.captures import PacketCapture
from nightcap.contract.segments import StreamKey, parse_file_name
from retrieval import access
from retrieval.access import Verb
from retrieval.audit import Access, AuditedBody, Auditor, Ended
from retrieval.files.answers import (
    asked_range,
    description,
    etag_of,
    finish,
    on_error,
    pcapng_headers,
    text,
)
from retrieval.files.bodies import Archive, Body, Checksums, part_of_file
from retrieval.files.catalog import COUNT_SECONDS, Catalog
from retrieval.files.doorkeeper import Doorkeeper, Granted, Groups, Judge, address_of_peer
from retrieval.files.missing import missing
from retrieval.files.streams import LiveSeats, StandingYes, Streams
from retrieval.store.base import ReadableStore
from retrieval.stored_reports import load_stored

_OPEN_PATHS: Final = frozenset({"/health", "/healthz", "/readyz"})
_ZIP: Final = "files.zip"
_MERGED: Final = "merged.pcapng"
_LIVE: Final = "live.pcapng"


def create_app(
    store: ReadableStore, judge: Judge, auditor: Auditor, is_ready: Callable[[], bool]
) -> flask.Flask:
    """Make the application; it starts nothing and asks nobody yet."""
    app = flask.Flask("retrieval", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # Flask would answer them without our checks
    app.url_map.merge_slashes = False  # a redirect would be an answer to a stranger
    door = Doorkeeper(judge)
    handlers = _Handlers(store, judge, door, auditor, is_ready)

    @app.get("/health")  # Calico's
    @app.get("/healthz")
    def healthz() -> flask.Response:
        return text("ok")

    @app.get("/readyz")
    def readyz() -> flask.Response:
        if is_ready():
            return text("ok")
        return text("not ready: waiting for certificates", 503)

    @app.before_request
    def authenticate() -> flask.Response | None:
        return None if flask.request.path in _OPEN_PATHS else door.authenticate()

    base = "/v1/namespaces/<namespace>/packetcaptures/<name>"
    ours = {"groups": (keys.GROUP,)}
    either = {"groups": access.EITHER_GROUP}
    app.get(f"{base}/files", defaults=ours)(handlers.list_files)
    app.get(f"{base}/files/<file>", defaults=ours)(handlers.one_file)
    app.get(f"{base}/{_ZIP}", defaults=ours)(handlers.all_files)
    app.get(f"{base}/{_MERGED}", defaults=ours)(handlers.merged)
    app.get(f"{base}/{_LIVE}", defaults=ours)(handlers.live)
    for prefix in ("", "/packet-capture"):
        # Calico's documents name DELETE in several forms; all of them are taken.
        download = f"{prefix}/download/<namespace>/<name>/{_ZIP}"
        app.get(download, endpoint=f"get{prefix}", defaults=either)(handlers.all_files)
        for number, path in enumerate(
            (
                download,
                f"{prefix}/files/<namespace>/<name>",
                f"{prefix}/files/<namespace>/<name>/{_ZIP}",
            )
        ):
            endpoint = f"delete{number}{prefix}"
            app.delete(path, endpoint=endpoint, defaults=either)(handlers.delete_files)

    app.register_error_handler(Exception, on_error)
    app.after_request(finish)
    return app


class _Handlers:
    """One method for each route."""

    def __init__(
        self,
        store: ReadableStore,
        judge: Judge,
        door: Doorkeeper,
        auditor: Auditor,
        is_ready: Callable[[], bool],
    ) -> None:
        self._store = store
        self._judge = judge
        self._door = door
        self._auditor = auditor
        self._catalog = Catalog(store)
        self._checksums = Checksums()
        self._streams = Streams(store, self._catalog, judge)
        self._live_seats = LiveSeats()
        self._is_ready = is_ready

    def list_files(self, namespace: str, name: str, groups: Groups) -> flask.Response:
        granted = self._door.authorize(namespace, name, groups, Verb.GET)
        files = self._catalog.files(namespace, granted.uid, count_seconds=COUNT_SECONDS)
        dropped = {stream: self._dropped(stream) for stream in {f.key.stream for f in files}}
        return flask.jsonify(
            {
                "files": [description(file, dropped[file.key.stream]) for file in files],
                "missing": missing(self._store, namespace, granted.uid),
            }
        )

    def one_file(self, namespace: str, name: str, file: str, groups: Groups) -> flask.Response:
        granted = self._door.authorize(namespace, name, groups, Verb.GET)
        parse_file_name(file)
        found = next(
            (f for f in self._catalog.files(namespace, granted.uid) if f.name == file), None
        )
        if found is None:
            raise NotFound(f"{namespace}/{name} has no file {file}")
        etag = etag_of(found)
        headers = {
            "Accept-Ranges": "bytes",
            "ETag": f'"{etag}"',
            "Content-Type": "application/vnd.tcpdump.pcap",
            "Content-Disposition": f'attachment; filename="{file}"',
        }
        request = flask.request
        if request.if_none_match.contains(etag):
            return flask.Response(status=304, headers={"ETag": headers["ETag"]})
        begin, end, status = asked_range(found.size, headers["ETag"])
        if status == 206:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{found.size}"
        headers["Content-Length"] = str(end - begin)
        if request.method == "HEAD":
            return flask.Response(status=status, headers=headers)
        try:
            body = part_of_file(self._store, found, begin, end)
        except FileNotFoundError as error:
            raise NotFound(f"{namespace}/{name} has no file {file} any more") from error
        return self._send(granted, file, body, status, headers)

    def all_files(self, namespace: str, name: str, groups: Groups) -> flask.Response:
        granted = self._door.authorize(namespace, name, groups, Verb.GET)
        files = self._catalog.files(namespace, granted.uid)
        if not files:
            return flask.Response(status=204)
        headers = {
            "Content-Type": "application/zip",
            "Content-Disposition": f"attachment; filename={_ZIP}",
        }
        with ExitStack() as stack:
            archive = Archive(self._store, files, self._checksums)
            stack.callback(archive.close)
            begin, end, status = 0, archive.length, 200
            if archive.etag is not None:
                # Of files that grow there is no second part: the next archive is another one.
                headers |= {"Accept-Ranges": "bytes", "ETag": f'"{archive.etag}"'}
                if flask.request.if_none_match.contains(archive.etag):
                    return flask.Response(status=304, headers={"ETag": headers["ETag"]})
                begin, end, status = asked_range(archive.length, headers["ETag"])
            if status == 206:
                headers["Content-Range"] = f"bytes {begin}-{end - 1}/{archive.length}"
            headers["Content-Length"] = str(end - begin)
            if flask.request.method == "HEAD":
                return flask.Response(status=status, headers=headers)
            stack.pop_all()
            return self._send(granted, _ZIP, archive.body(begin, end), status, headers)

    def merged(self, namespace: str, name: str, groups: Groups) -> flask.Response:
        granted = self._door.authorize(namespace, name, groups, Verb.GET)
        wanted = self._streams.wanted()
        headers = pcapng_headers(f"{name}.pcapng")
        with ExitStack() as stack:
            filters = self._streams.filters(wanted, namespace, granted.uid, stack)
            pieces = self._streams.merged(granted.ref, granted.uid, wanted, filters, stack)
            if pieces is None:
                return flask.Response(status=204)
            if flask.request.method == "HEAD":
                return flask.Response(status=200, headers=headers)
            return self._send_pieces(granted, _MERGED, pieces, stack.pop_all(), headers)

    def live(self, namespace: str, name: str, groups: Groups) -> flask.Response:
        granted = self._door.authorize(namespace, name, groups, Verb.GET)
        wanted = self._streams.wanted()
        # No proxy on the way is to wait for more.
        headers = pcapng_headers(f"{name}-live.pcapng") | {"X-Accel-Buffering": "no"}
        with ExitStack() as stack:
            filters = self._streams.filters(wanted, namespace, granted.uid, stack)
            if flask.request.method == "HEAD":
                return flask.Response(status=200, headers=headers)
            self._live_seats.take(stack)
            asked = access.question(granted.ref, Verb.GET)
            standing = StandingYes(self._judge, flask.g.token, asked, granted.ref, granted.capture)
            pieces = self._streams.live(
                standing,
                granted.ref,
                granted.uid,
                wanted,
                filters,
                lambda: not self._is_ready(),
                stack,
            )
            return self._send_pieces(granted, _LIVE, pieces, stack.pop_all(), headers)

    def delete_files(self, namespace: str, name: str, groups: Groups) -> flask.Response:
        granted = self._door.authorize(namespace, name, groups, Verb.DELETE)
        fault = access.deletion_fault(_phase(granted.capture))
        if fault is not None:
            return text(fault, 403)
        count = size = 0
        ended = Ended.FAILED
        try:
            for stream in self._store.streams(namespace, granted.uid):
                for segment in self._store.segments(stream):
                    self._store.delete_segment(segment.key)
                    count, size = count + 1, size + segment.size
            ended = Ended.COMPLETE
        finally:
            status = 200 if ended is Ended.COMPLETE else 500
            record = _access_of(granted, _ZIP)
            self._auditor.record(record, status=status, sent_bytes=size, ended=ended)
        return text(f"{count} files deleted")

    def _send(
        self, granted: Granted, what: str, body: Body, status: int, headers: dict[str, str]
    ) -> flask.Response:
        self._door.sit_down(granted, body.stack)
        audited = AuditedBody(
            body.chunks, body.stack.close, self._auditor, _access_of(granted, what), status
        )
        return flask.Response(audited, status=status, headers=headers, direct_passthrough=True)

    def _send_pieces(
        self,
        granted: Granted,
        what: str,
        pieces: Iterator[bytes],
        stack: ExitStack,
        headers: dict[str, str],
    ) -> flask.Response:
        """Send what has no known length."""
        self._door.sit_down(granted, stack)
        query = flask.request.query_string.decode("ascii", "replace")[:2000]
        named = f"{what}?{query}" if query else what
        audited = AuditedBody(pieces, stack.close, self._auditor, _access_of(granted, named), 200)
        return flask.Response(audited, headers=headers, direct_passthrough=True)

    def _dropped(self, stream: StreamKey) -> int | None:
        """Packets that the kernel dropped in this pod; it does not say of which file."""
        stored = load_stored(self._store.report(stream))
        return None if stored is None else stored.report.dropped


def _phase(capture: PacketCapture) -> str | None:
    phase = (capture.status or {}).get("phase")
    return phase if isinstance(phase, str) else None


def _access_of(granted: Granted, what: str) -> Access:
    request = flask.request
    return Access(
        action=granted.verb.value,
        user=granted.identity.username,
        groups=granted.identity.groups,
        namespace=granted.ref.namespace,
        capture=granted.ref.name,
        capture_uid=granted.uid,
        what=what,
        address=address_of_peer(),
        forwarded_for=request.headers.get("X-Forwarded-For", "")[:200],
    )
