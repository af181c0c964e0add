"""A real S3-speaking server on the loopback, over the network like any other."""

import itertools
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from retrieval.store.bucket import Bucket
from tests.cluster import programs, toolchain
from tests.cluster.cache import build_lock

ACCESS_KEY = "nightcap-tests"
SECRET_KEY = "no-secret-at-all"
BUCKET = "captures"


def build() -> Path:
    """The server's program; builds it when the cache does not have it."""
    part = programs.VERSITYGW
    if not programs.is_built(part):
        print("building versitygw, once", file=sys.stderr, flush=True)
        with build_lock():
            programs.build_go_part(part, toolchain.find_go(toolchain.needed_version([part.go_mod])))
    return programs.program(part, "versitygw")


class S3Server:
    """One server, with one bucket; each test has a prefix of its own."""

    def __init__(
        self, folder: Path, address: str = "127.0.0.1", tls: tuple[Path, Path] | None = None
    ) -> None:
        """Start it; with TLS if there is a certificate and its key."""
        self.folder = folder
        self.tls = tls
        self.address = address
        self._prefixes = itertools.count(1)
        (folder / "data" / BUCKET).mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind((address, 0))
            self.port = int(probe.getsockname()[1])
        self.process = self.start()

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.address}:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What a program needs to know."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> subprocess.Popen[bytes]:
        environ = os.environ | {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [build(), *self._tls_flags(), "--port", f"{self.address}:{self.port}", "--quiet",
                 "posix", self.folder / "data"],
                env=environ, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((self.address, self.port), 1).close()
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return self.process

    def _tls_flags(self) -> list[str]:
        return ["--cert", str(self.tls[0]), "--key", str(self.tls[1])] if self.tls else []

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def new_url(self) -> str:
        return f"s3://{BUCKET}/test-{next(self._prefixes)}/store"

    def bucket(self, url: str | None = None) -> Bucket:
        config = {
            "endpoint": self.endpoint,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "region": "us-east-1",
        }
        return Bucket(url or self.new_url(), config)
