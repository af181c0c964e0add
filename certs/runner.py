"""gunicorn, run from code: one worker process with threads, TLS contexts that may change.

`certs.worker` is that process, and says what of gunicorn it relies on.
"""

import gc
import os
import socket
import ssl
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from certs.bodies import BODY, RequestBody
from certs.worker import DrainingWorker, ServerOptions

KEEP_ALIVE_SECONDS = 130
"""Longer than client-go keeps idle connections (90 s): the client closes, never we."""

_MEMORY_DIR = Path("/dev/shm")  # noqa: S108 - for gunicorn's heartbeat file, which has no name
_EXIT_SECONDS = 5


class QuietLogger(Logger):  # type: ignore[misc]
    """gunicorn's messages through our own logging, so that they are JSON lines, too."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for logger in (self.error_log, self.access_log):
            logger.handlers.clear()
            logger.propagate = True


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
        has_body = environ.get("CONTENT_LENGTH", "0") not in ("", "0")
        if has_body or environ.get("HTTP_TRANSFER_ENCODING"):
            options, response = self.options, start_response.__self__
            connection = options.current.connection
            environ[BODY] = RequestBody(connection, response, options.deadlines)
        return self.app(environ, start_response)


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
