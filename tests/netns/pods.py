"""A pod with a sidecar in a network namespace: orders are swapped as the kubelet swaps them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nightcap.contract.orders import CaptureOrder, Orders, dump_orders
from tests.netns.built import start_script
from tests.netns.collector import NAME, TOKEN, root_pem
from tests.netns.net import Link

ID = "0a1b2c3d-0000-4000-8000-000000000001"
ID_2 = "0a1b2c3d-0000-4000-8000-000000000002"


def swap(folder: Path, text: str) -> None:
    """What the kubelet's AtomicWriter does."""
    folder.mkdir(exist_ok=True)
    link = folder / "..data"
    old = folder / link.readlink() if link.is_symlink() else None
    new = folder / f"..{time.monotonic_ns()}"
    new.mkdir()
    (new / "orders").write_text(text)
    (folder / "..data_tmp").symlink_to(new.name)
    (folder / "..data_tmp").rename(link)
    with contextlib.suppress(FileExistsError):
        (folder / "orders").symlink_to("..data/orders")
    if old is not None:
        (old / "orders").unlink()
        old.rmdir()


def an_order(**changes: Any) -> CaptureOrder:
    facts: dict[str, Any] = {
        "id": ID,
        "namespace": "storefront",
        "name": "dns",
        "until": int(time.time()) + 600,
        "filter": "udp dst port 5353",
        "interfaces": ("eth0",),
    }
    return CaptureOrder(**{**facts, **changes})


@dataclass
class Pod:
    link: Link
    folder: Path
    collectors: tuple[tuple[str, int], ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    def order(self, *captures: CaptureOrder) -> None:
        swap(self.folder / "orders", dump_orders(Orders(self.collectors, captures)))

    def order_text(self, text: str) -> None:
        swap(self.folder / "orders", text)

    def variables(self) -> dict[str, str]:
        self.spool.mkdir(exist_ok=True)
        (self.folder / "token").write_text(TOKEN + "\n")
        return {
            "NIGHTCAP_ORDERS_DIR": str(self.folder / "orders"),
            "NIGHTCAP_SPOOL_DIR": str(self.spool),
            "NIGHTCAP_TOKEN_FILE": str(self.folder / "token"),
            "NIGHTCAP_COLLECTOR_NAME": NAME,
            "NIGHTCAP_COLLECTOR_CA": root_pem(),
            "NIGHTCAP_WORKER_PYTHON": sys.executable,
            "NIGHTCAP_WORKER_SCRIPT": str(start_script()),
            **self.environ,
        }

    def start(
        self, *, dormant: Path | None = None, capabilities: str = "", script: Path | None = None
    ) -> None:
        """Start the worker itself by its script, or the dormant program that starts it.

        `capabilities` are as setpriv takes them, such as `-all,+net_raw`.
        """
        worker = [sys.executable, "-I", "-S", "-E", "-B", str(script or start_script())]
        command = [str(dormant)] if dormant else worker
        if capabilities:
            command = ["setpriv", "--bounding-set", capabilities, *command]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.link.pod.command(*command),
                env=self.variables() | {"PATH": os.environ["PATH"]},
                stderr=log,
            )

    def log(self) -> list[dict[str, Any]]:
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def events(self) -> list[str]:
        return [line["event"] for line in self.log()]

    def wait_open(self) -> None:
        wait_for(lambda: (self.spool / ".open").exists(), "captures open")

    def terminate(self, timeout: float = 10) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def wait_end(self, timeout: float = 10) -> int:
        assert self.process is not None
        return self.process.wait(timeout)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


def wait_for(condition: Callable[[], object], what: str, timeout: float = 8) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {timeout} s"
        time.sleep(0.02)
