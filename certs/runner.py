"""gunicorn, run from code: one worker process with threads, TLS contexts that may change.

Of gunicorn 27 (`workers/gthread.py`, `arbiter.py`) this relies on: the `ssl_context` hook
is called for every connection, in its thread; the worker's loop and its `poller` belong to
one thread, which calls `on_client_socket_readable` for a connection that is registered and
in `keepalived_conns` (in order of its `timeout`); `notify` is called from that loop at least
once a second; at SIGTERM the arbiter closes its copy of the listener and tells the worker,
which goes on accepting on its own copy for as long as it likes; `handle` runs in a thread of
`tpool`, a ThreadPoolExecutor, and returns True when a connection may go on; after anything
false the main thread calls its `close`.
"""

import contextlib
import errno
import gc
import os
import select
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import TConn, ThreadWorker

from certs.deadlines import (
    BODY_READ,
    BODY_SECONDS,
    BODY_UNWANTED,
    HEAD_SECONDS,
    HURRIED_SECONDS,
    UNWANTED_SECONDS,
    Deadlines,
)
from certs.plain import Next, PlainApp, PlainStream

KEEP_ALIVE_SECONDS = 130
"""Longer than client-go keeps idle connections (90 s): the client closes, never we."""

_MEMORY_DIR = Path("/dev/shm")  # noqa: S108 - for gunicorn's heartbeat file, which has no name
_EXIT_SECONDS = 5
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


class QuietLogger(Logger):  # type: ignore[misc]
    """gunicorn's messages through our own logging, so that they are JSON lines, too."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for logger in (self.error_log, self.access_log):
            logger.handlers.clear()
            logger.propagate = True


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


class Program(BaseApplication):  # type: ignore[misc]
    """One WSGI application with its options as gunicorn wants them."""

    def __init__(self, app: Any, options: ServerOptions) -> None:
        self.app = app
        self.options = options
        super().__init__()

    def load_config(self) -> None:
        for key, value in _settings_of(self.options).items():
            self.cfg.set(key, value)

    def load(self) -> Any:
        return self._in_time

    def _in_time(self, environ: dict[str, Any], start_response: Any) -> Any:
        """The application; a request's head has come, and its body must."""
        deadlines, connection = self.options.deadlines, self.options.current.connection
        has_body = environ.get("CONTENT_LENGTH", "0") not in ("", "0")
        if has_body or environ.get("HTTP_TRANSFER_ENCODING"):
            deadlines.put(connection, time.monotonic() + BODY_SECONDS)
            environ[BODY_READ] = partial(deadlines.clear, connection)
            environ[BODY_UNWANTED] = partial(self._hurry_body, connection)
        else:
            deadlines.clear(connection)
        return self.app(environ, start_response)

    def _hurry_body(self, connection: Any) -> None:
        self.options.deadlines.put(connection, time.monotonic() + UNWANTED_SECONDS)


def run_server(app: Any, options: ServerOptions) -> None:
    """Serve until SIGTERM; raises SystemExit at the end."""
    Program(app, options).run()


def _settings_of(options: ServerOptions) -> dict[str, Any]:
    def ssl_context(_config: Any, _default: Any) -> ssl.SSLContext:
        return options.ssl_context()

    def post_worker_init(_worker: Any) -> None:
        # An error here ends the program and not only the worker: no endless restarts.
        options.on_start()
        # What is there now stays for good; going through it again and again would stop the
        # world for tens of milliseconds each time.
        gc.collect()
        gc.freeze()

    patience = options.drain_seconds + options.graceful_seconds + _EXIT_SECONDS
    return {
        "bind": f"{options.address or _every_address()}:{options.port}",
        "worker_class": DrainingWorker,
        "workers": 1,
        "threads": options.threads,
        "worker_connections": max(options.max_connections, options.threads + 1),
        "keepalive": KEEP_ALIVE_SECONDS,
        "graceful_timeout": int(patience),
        "timeout": 120,
        "worker_tmp_dir": str(_MEMORY_DIR) if os.access(_MEMORY_DIR, os.W_OK) else None,
        "control_socket_disable": True,
        "certfile": options.certificate_file,
        "ssl_context": ssl_context,
        "post_worker_init": post_worker_init,
        "logger_class": QuietLogger,
        "accesslog": None,
        # No proxy stands before us, so no header speaks for one; said so that gunicorn does not
        # compare the address of each request with a list.
        "forwarded_allow_ips": "*",
        "forwarder_headers": "",
        "secure_scheme_headers": {},
        # Tokens of identity providers can be long; our own report header is 4 KiB.
        "limit_request_fields": 64,
        "limit_request_field_size": 16384,
    }


def _every_address() -> str:
    return "[::]" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - a server
