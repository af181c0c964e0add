"""gunicorn's threaded worker, as we run it: who is slow costs a connection and no thread.

Of gunicorn 27 (`workers/gthread.py`) this relies on: the `ssl_context` hook is called for every
connection, in its thread; the worker's loop and its `poller` belong to one thread, which calls
what was registered for a connection that is readable, `notify` and `murder_pending` at least
once a second; a kept-alive connection is in `keepalived_conns` (in order of its `timeout`), one
that is waited for in `pending_conns`, and both are counted in `nr_conns`; `handle` runs in a
thread of `tpool`, a ThreadPoolExecutor, its result is given to `finish_request` in the loop's
thread, and True means that the connection goes on; `_cap_keepalive` is called when the loop has
ended, with the time until which kept-alive connections stay; at SIGTERM the arbiter closes its
copy of the listener and tells the worker, which goes on accepting on its own copy for as long as
it likes.
"""

import contextlib
import errno
import select
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from certs.arriving import Arrived, Connection
from certs.deadlines import Deadlines
from certs.plain import Next, PlainApp, PlainStream

_STAY_MILLISECONDS = 20
_GOODBYE_SECONDS = 2.0
_GOODBYE_BYTES = 8 * 2**20
_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_OUT_OF_FILES_SECONDS = 0.05
_NOBODY_THERE = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EINTR})


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to serve; see `certs.serving.serve`."""

    port: int
    address: str | None
    threads: int
    max_connections: int
    drain_seconds: float
    graceful_seconds: float
    certificate_file: str
    ssl_context: Callable[[], ssl.SSLContext]
    on_start: Callable[[], None]
    on_stop: Callable[[], None]
    draining: threading.Event
    plain: PlainApp | None = None
    deadlines: Deadlines = field(default_factory=Deadlines)
    current: threading.local = field(default_factory=threading.local)


class Then(Enum):
    """What becomes of a connection that a thread has left and that is not kept for a request."""

    WAIT = auto()
    """More of its handshake or of a head is to come."""
    SAY_GOODBYE = auto()
    """Its client has to read the last answer before it is closed."""
    CLOSE = auto()


class DrainingWorker(ThreadWorker):  # type: ignore[misc]
    """A threaded worker that goes on serving for a while after SIGTERM.

    Endpoints and the connections of kube-proxy go away only seconds after the signal. In
    that time each answer ends its connection, so that the client opens its next elsewhere.
    """

    _stop_at: float | None = None
    _stay_until = float("inf")
    _looked_at = 0.0

    def get_thread_pool(self) -> Any:
        """Called in the worker's process, before it accepts."""
        self._staying = threading.BoundedSemaphore(max(1, self.app.options.threads // 2))
        return super().get_thread_pool()

    def on_client_socket_readable(self, conn: Any, client: Any) -> None:
        """A kept-alive connection has something: answered here if it is plain, else in a thread.

        A thread for each request would be a future, two wake-ups and a fight over the
        interpreter: as much as a small answer costs, and all of its longest delays.
        """
        stream = self._plain_stream(conn)
        if stream is None or conn.unwanted:
            super().on_client_socket_readable(conn, client)
            return
        match stream.go_on() if self.alive and self._stop_at is None else Next.GUNICORN:
            case Next.WAIT:
                conn.set_timeout()
                if self.keepalived_conns[-1] is not conn:  # they are in order of their timeouts
                    self.keepalived_conns.remove(conn)
                    self.keepalived_conns.append(conn)
            case Next.GONE:
                self.poller.unregister(client)
                self.keepalived_conns.remove(conn)
                self._close(conn)
            case Next.GUNICORN:
                stream.give_back()
                super().on_client_socket_readable(conn, client)

    def _plain_stream(self, conn: Any) -> PlainStream | None:
        plain = self.app.options.plain
        if plain is None:
            return None
        stream: PlainStream | None = getattr(conn, "plain_stream", None)
        if stream is None:
            stream = conn.plain_stream = PlainStream(plain, conn.sock, conn.parser.unreader)
        return stream

    def handle(self, conn: Connection) -> bool | Then:
        """Take what has come of a connection and answer its requests, in a thread of the pool.

        Each time it leaves, the connection goes through the main thread and another one. So it
        stays for the blink in which a client ends its handshake, or a busy one sends its next
        request; never more than half of the threads, and none when others wait for one. Not
        between requests where plain ones are answered in the main thread anyway.
        """
        stream: PlainStream | None = getattr(conn, "plain_stream", None)
        if stream is not None:
            try:
                conn.sock.setblocking(True)
                if stream.send_rest() and not conn.parser.unreader.buf.tell():
                    return True
            except OSError:
                return Then.CLOSE
        is_answered = False
        while True:
            match conn.come(time.monotonic()):
                case Arrived.GONE:
                    return Then.CLOSE
                case Arrived.REFUSED:
                    return _last_words_said(conn)
                case Arrived.WAITING if not self._next_comes(conn):
                    return True if is_answered and not conn.has_begun else Then.WAIT
                case Arrived.READY:
                    if not self._answer(conn):
                        return _last_words_said(conn)
                    if self.app.options.plain is not None:
                        return True
                    is_answered = True

    def _answer(self, conn: Connection) -> bool:
        """Answer one request; whether its connection may be kept."""
        options: ServerOptions = self.app.options
        options.current.connection = conn
        try:
            return bool(super().handle(conn))
        finally:
            options.deadlines.clear(conn)

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """Whether a connection can carry another request.

        gunicorn would wait seconds for the rest of a body that the application did not want.
        """
        return keepalive and conn.skip_body(time.monotonic())

    def _next_comes(self, conn: Connection) -> bool:
        if not self.alive or self._stop_at is not None or not self._staying.acquire(blocking=False):
            return False
        try:
            if self.tpool._work_queue.qsize():
                return False
            poll = select.poll()
            poll.register(conn.sock, select.POLLIN)
            return bool(poll.poll(_STAY_MILLISECONDS))
        finally:
            self._staying.release()

    def handle_exit(self, sig: int, frame: Any) -> None:
        options: ServerOptions = self.app.options
        if self._stop_at is not None or options.drain_seconds <= 0:
            options.draining.set()
            super().handle_exit(sig, frame)
            return
        self._stop_at = time.monotonic() + options.drain_seconds
        options.draining.set()
        self.cfg.set("keepalive", 0)

    def finish_request(self, conn: Connection, fs: Any) -> None:
        """Take a connection back from its thread.

        One that was promised to be kept just before SIGTERM is kept while we drain: its
        client may be sending already.
        """
        match self._result(fs):
            case Then.CLOSE:
                self._close(conn)
            case Then.WAIT:
                self._watch(conn, conn.due_at, partial(self.on_pending_socket_readable, conn))
            case Then.SAY_GOODBYE:
                # gunicorn does that here for 2 s, and nobody else would be served meanwhile.
                until = time.monotonic() + _GOODBYE_SECONDS
                self._watch(conn, until, partial(self._on_leaving_readable, conn))
            case _:
                super().finish_request(conn, fs)
                if self._stop_at is not None:
                    conn.timeout = self._stop_at

    def _result(self, fs: Any) -> bool | Then:
        if fs.cancelled():
            return Then.CLOSE
        error = fs.exception()
        if error is not None:  # of ours: gunicorn's own are answered where they occur
            self.log.error("connection failed: %r", error)
            return Then.CLOSE
        result: bool | Then = fs.result()
        return result

    def accept(self, listener: Any) -> None:
        """Take a connection, and give it a thread only when it has said something.

        gunicorn gives it one at once, for 5 s: a few dozen clients that connect and say
        nothing would keep everybody else waiting.
        """
        try:
            connected, address = listener.accept()
        except OSError as error:
            if error.errno in _OUT_OF_FILES:
                self.log.warning("connection not taken: %s", error)
                time.sleep(_OUT_OF_FILES_SECONDS)
            elif error.errno not in _NOBODY_THERE:
                raise
            return
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            self._make_place()
        here = listener.getsockname()
        conn = Connection(self.cfg, connected, address, here, time.monotonic())
        self._watch(conn, conn.due_at, partial(self.on_pending_socket_readable, conn))

    def _watch(self, conn: Connection, until: float, on_readable: Callable[[Any], None]) -> None:
        """Wait for a connection without a thread."""
        conn.timeout = min(until, self._stay_until)
        try:
            self.poller.register(conn.sock, selectors.EVENT_READ, on_readable)
        except (OSError, KeyError, ValueError):  # cut meanwhile
            self._close(conn)
            return
        self.pending_conns.append(conn)

    def _on_leaving_readable(self, conn: Connection, client: Any) -> None:
        """What comes after the last answer is thrown away: the client may be sending still.

        If we closed at once, the rest of a refused body would cost it the answer.
        """
        try:
            piece = client.recv(2**16)  # TLS has ended: these are bytes of its records
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        conn.left_bytes += len(piece)
        if not piece or conn.left_bytes > _GOODBYE_BYTES:
            self._forget(conn)

    def _forget(self, conn: Connection) -> None:
        """Close a connection that is waited for."""
        with contextlib.suppress(OSError, KeyError, ValueError):
            self.poller.unregister(conn.sock)
        self.pending_conns.remove(conn)
        self._close(conn)

    def _close(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close()

    def _cap_keepalive(self, deadline: float) -> None:
        """Nor does a handshake or a head that is half there keep a server from its end."""
        super()._cap_keepalive(deadline)
        self._stay_until = deadline
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def murder_pending(self) -> None:
        """Close those that were waited for in vain; gunicorn takes them to be in order of that."""
        now = time.monotonic()
        if now < self._looked_at + 1:
            return
        self._looked_at = now
        for conn in [each for each in self.pending_conns if each.timeout <= now]:
            self._forget(conn)

    def _make_place(self) -> None:
        """Let go the connection that has said nothing for longest.

        At the limit gunicorn accepts nobody: whoever holds many idle ones would lock us.
        """
        if len(self.pending_conns) > self.worker_connections // 4:
            self._forget(self.pending_conns[0])
        elif self.keepalived_conns:
            conn = self.keepalived_conns.popleft()
            with contextlib.suppress(OSError, KeyError, ValueError):
                self.poller.unregister(conn.sock)
            self._close(conn)

    def notify(self) -> None:
        """Called by the worker's loop at least once a second."""
        super().notify()
        in_a_hurry = self.tpool._work_queue.qsize() > 0
        self.app.options.deadlines.sweep(time.monotonic(), in_a_hurry=in_a_hurry)
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.alive = False

    def run(self) -> None:
        options: ServerOptions = self.app.options
        # The arbiter's patience covers the drain, too; the worker's begins after it.
        self.cfg.set("graceful_timeout", int(options.graceful_seconds))
        try:
            super().run()
        finally:
            options.on_stop()


def _last_words_said(conn: Connection) -> Then:
    """No answer follows on a connection."""
    try:
        conn.sock.shutdown(socket.SHUT_WR)
        conn.sock.setblocking(False)
    except OSError:
        return Then.CLOSE
    return Then.SAY_GOODBYE
