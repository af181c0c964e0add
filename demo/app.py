"""The walk-through's application: a catalog that answers, and frontends that ask it by name.

Runs in its own image, on the standard library alone:

    python3 app.py catalog PORT
    python3 app.py frontend URL SECONDS

A frontend numbers its requests, and says for each which local port it left from: so a
capture file can be held against what the application knows it has sent.
"""

import http.client
import http.server
import os
import signal
import sys
import time
from typing import NoReturn
from urllib.parse import urlsplit


class _Catalog(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b'{"items": ["lantern", "blanket", "nightcap"]}\n'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name upstream
        """Keep quiet: the frontends' log tells the story."""


def serve_catalog(port: int) -> None:
    """Answer every request with the catalog, forever."""
    http.server.ThreadingHTTPServer(("", port), _Catalog).serve_forever()


def ask_forever(url: str, pause_seconds: float) -> NoReturn:
    """Ask the catalog again and again, each time by its name and on a new connection."""
    target = urlsplit(url)
    pod = os.environ.get("HOSTNAME", "frontend")
    number = 0
    while True:
        number += 1
        # http.client resolves the name each time: a lookup in DNS comes before each connection.
        connection = http.client.HTTPConnection(str(target.hostname), target.port or 80, timeout=5)
        try:
            connection.connect()
            local_port = connection.sock.getsockname()[1]
            connection.request("GET", f"/?pod={pod}&n={number}")
            status = connection.getresponse().status
            print(f"n={number} port={local_port} status={status}", flush=True)
        except OSError as error:
            print(f"n={number} error={error}", flush=True)
        finally:
            connection.close()
        time.sleep(pause_seconds)


def main() -> None:
    """Run as one of the two."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    match sys.argv[1:]:
        case ["catalog", port]:
            serve_catalog(int(port))
        case ["frontend", url, seconds]:
            ask_forever(url, float(seconds))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
