"""The worker of gunicorn that accepts, answers and drains as our servers need it.

Of gunicorn 27 (`workers/gthread.py`, `arbiter.py`) this relies on: the worker's loop and its
`poller` belong to one thread, which calls `on_client_socket_readable` for a connection that is
registered and in `keepalived_conns` (in order of its `timeout`); `notify` is called from that
loop at least once a second; at SIGTERM the arbiter closes its copy of the listener and tells the
worker, which goes on accepting on its own copy for as long as it likes; `handle` runs in a thread
of `tpool`, a ThreadPoolExecutor, and returns True when a connection may go on; after anything
false the main thread calls its `close`.
"""

import contextlib
import errno
import select
import selectors
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

from certs.deadlines import HEAD_SECONDS, HURRIED_SECONDS, Deadlines
from certs.plain import Next, PlainApp, PlainStream

_FIRST_BYTE_SECONDS = 10.0
_STAY_MILLISECONDS = 20
_GOODBYE_SECONDS = 2.0
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


class DrainingWorker(ThreadWorker):  # type: ignore[misc]
    """A threaded worker that goes on serving for a while after SIGTERM.

    Endpoints and the connections of kube-proxy go away only seconds after the signal. In
    that time each answer ends its connection, so that the client opens its next elsewhere.
    """

    _stop_at: float | None = None
    _staying = 0

    def on_client_socket_readable(self, conn: Any, client: Any) -> None:
        """A kept-alive connection has something: answered here if it is plain, else in a thread.

        A thread for each request would be a future, two wake-ups and a fight over the
        interpreter: as much as a small answer costs, and all of its longest delays.
        """
        stream = self._plain_stream(conn)
        if stream is None:
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
                self.nr_conns -= 1
                conn.close()
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

    def handle(self, conn: Any) -> Any:
        """Answer requests of a connection, in a thread of the pool.

        Between two requests gunicorn takes a connection back to its main thread. So the thread
        stays for the blink in which a busy client sends its next request; never more than half
        of the threads, and none when others wait for one. Not where plain requests are
        answered in the main thread anyway.
        """
        stream: PlainStream | None = getattr(conn, "plain_stream", None)
        if stream is not None:
            try:
                conn.sock.setblocking(True)
                if stream.send_rest() and not conn.parser.unreader.buf.tell():
                    return True
            except OSError:
                return False
        result = self._handle_in_time(conn)
        while result is True and self.app.options.plain is None and self._next_comes(conn):
            result = self._handle_in_time(conn)
        if not result:
            self._say_goodbye(conn)
        return result

    def _say_goodbye(self, conn: Any) -> None:
        """Close a connection, and wait a moment until its client has read the answer.

        gunicorn does that in its main thread, for 2 s with a client that does not close: nobody
        else would be served meanwhile.
        """
        deadlines, now = self.app.options.deadlines, time.monotonic()
        deadlines.put(conn, now + _GOODBYE_SECONDS, hurried_until=now)
        try:
            conn.close(graceful=True)
        except OSError:
            conn.close()
        finally:
            deadlines.clear(conn)
            conn.close = lambda graceful=False: None  # it would be closed once more

    def _handle_in_time(self, conn: Any) -> Any:
        """Answer one request, if its head comes in time."""
        options: ServerOptions = self.app.options
        options.current.connection = conn
        now = time.monotonic()
        options.deadlines.put(conn, now + HEAD_SECONDS, now + HURRIED_SECONDS)
        try:
            return super().handle(conn)
        finally:
            options.deadlines.clear(conn)

    def _next_comes(self, conn: Any) -> bool:
        options: ServerOptions = self.app.options
        if not self.alive or self._stop_at is not None or self._staying >= options.threads // 2:
            return False
        if conn.parser.unreader.buf.tell() or conn.sock.pending():
            return True
        # Not exact under concurrency, and need not be.
        self._staying += 1
        try:
            if self.tpool._work_queue.qsize():
                return False
            poll = select.poll()
            poll.register(conn.sock, select.POLLIN)
            return bool(poll.poll(_STAY_MILLISECONDS))
        finally:
            self._staying -= 1

    def handle_exit(self, sig: int, frame: Any) -> None:
        options: ServerOptions = self.app.options
        if self._stop_at is not None or options.drain_seconds <= 0:
            options.draining.set()
            super().handle_exit(sig, frame)
            return
        self._stop_at = time.monotonic() + options.drain_seconds
        options.draining.set()
        self.cfg.set("keepalive", 0)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Take a connection back from its thread.

        One that was promised to be kept just before SIGTERM is kept while we drain: its
        client may be sending already.
        """
        super().finish_request(conn, fs)
        if self._stop_at is not None:
            conn.timeout = self._stop_at

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
        connection = TConn(self.cfg, connected, address, listener.getsockname())
        connection.timeout = time.monotonic() + _FIRST_BYTE_SECONDS
        self.pending_conns.append(connection)
        self.poller.register(
            connected, selectors.EVENT_READ, partial(self.on_pending_socket_readable, connection)
        )

    def _make_place(self) -> None:
        """Let go the connection that has said nothing for longest.

        At the limit gunicorn accepts nobody: whoever holds many idle ones would lock us.
        """
        for idle in (self.pending_conns, self.keepalived_conns):
            if idle and (idle is self.keepalived_conns or len(idle) > self.worker_connections // 4):
                connection = idle.popleft()
                with contextlib.suppress(OSError, KeyError, ValueError):
                    self.poller.unregister(connection.sock)
                self.nr_conns -= 1
                connection.close()
                return

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
