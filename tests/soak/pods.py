"""Pods that capture: the real dormant program and worker, packets with numbers, and a witness."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nightcap.contract.orders import CaptureOrder, Limit, Orders, Rotation, dump_orders
from nightcap.contract.paths import OPEN_MARKER, collector_name
from nightcap.contract.uploads import COLLECTOR_PORT
from sidecar.ledger import LedgerFile
from tests.netns.built import start_script
from tests.netns.pods import swap
from tests.soak.network import HUB, PodLink

NAMESPACE, CAPTURE = "soak", "soak"
PACKET_PORT = 5353
PACKET_BYTES = 200
ROTATE_BYTES = 100_000


@dataclass
class SoakPod:
    """One pod; `kills` are the moments at which its sidecar was killed, by the wall clock."""

    name: str
    uid: str
    link: PodLink
    folder: Path
    dormant: Path
    kills: list[float] = field(default_factory=list)
    sent: array.array[float] = field(default_factory=lambda: array.array("d"))
    process: subprocess.Popen[bytes] | None = None

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    @property
    def is_open(self) -> bool:
        return (self.spool / OPEN_MARKER).exists()

    def prepare(self, token: str) -> None:
        self.spool.mkdir(parents=True)
        (self.folder / "archive").mkdir()
        (self.folder / "token").write_text(token)

    def order(self, capture: str, until: int) -> None:
        order = CaptureOrder(
            id=capture, namespace=NAMESPACE, name=CAPTURE, until=until,
            filter=f"udp dst port {PACKET_PORT}", interfaces=("eth0",),
            rotation=Rotation(max_bytes=ROTATE_BYTES, max_files=100_000), limit=Limit(bytes=0),
        )  # fmt: skip
        swap(self.folder / "orders", dump_orders(Orders(((HUB, COLLECTOR_PORT),), (order,))))

    def start(self, ca: str) -> None:
        environ = {
            "PATH": os.environ["PATH"],
            "NIGHTCAP_ORDERS_DIR": str(self.folder / "orders"),
            "NIGHTCAP_SPOOL_DIR": str(self.spool),
            "NIGHTCAP_TOKEN_FILE": str(self.folder / "token"),
            "NIGHTCAP_COLLECTOR_NAME": collector_name(1),
            "NIGHTCAP_COLLECTOR_CA": ca,
            "NIGHTCAP_WORKER_PYTHON": sys.executable,
            "NIGHTCAP_WORKER_SCRIPT": str(start_script()),
        }
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.link.command(str(self.dormant)), env=environ, stderr=log
            )

    def kill_worker(self) -> None:
        """kill -9 of the worker alone; the dormant program starts it again."""
        for worker in self._workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, 9)
        self.kills.append(time.time())

    def kill_container(self, ca: str) -> None:
        """kill -9 of all of it; the kubelet starts the container again, the spool stays."""
        self.end()
        self.kills.append(time.time())
        self.start(ca)

    def end(self) -> None:
        assert self.process is not None
        workers = self._workers()
        self.process.kill()
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, 9)
        self.process.wait()

    def _workers(self) -> list[int]:
        assert self.process is not None
        pid = self.process.pid
        with contextlib.suppress(FileNotFoundError):
            return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return []

    def is_shipped(self, capture: str) -> bool:
        """Whether the last report was accepted, so that nothing is left in the spool."""
        try:
            return LedgerFile(str(self.spool / capture)).read().reported
        except (FileNotFoundError, ValueError):
            return False


class Background:
    """Sends numbered packets to all pods, and links every segment into an archive.

    The archive is the witness: whatever becomes of a spool, it has each byte that was
    ever in one.
    """

    def __init__(self, pods: Sequence[SoakPod], capture: str, packets_per_second: int) -> None:
        self._pods = pods
        self._capture = capture
        self._period = 1 / packets_per_second
        self._silent = threading.Event()
        self._stopped = threading.Event()
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._witness = threading.Thread(target=self._archive, daemon=True)

    def start(self) -> None:
        self._witness.start()
        self._sender.start()

    def silence(self) -> None:
        self._silent.set()
        self._sender.join()

    def stop(self) -> None:
        self._silent.set()
        self._stopped.set()
        self._witness.join()

    def _send(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            at = time.monotonic()
            while not self._silent.is_set():
                for pod in self._pods:
                    number = len(pod.sent).to_bytes(8, "big")
                    pod.sent.append(time.time())
                    sock.sendto(number.ljust(PACKET_BYTES, b"."), (pod.link.address, PACKET_PORT))
                at = max(at + self._period, time.monotonic() - 1)
                self._silent.wait(max(0.0, at - time.monotonic()))

    def _archive(self) -> None:
        known: set[tuple[str, int]] = set()
        while not self._stopped.wait(0.02):
            for pod in self._pods:
                self._archive_pod(pod, known)

    def _archive_pod(self, pod: SoakPod, known: set[tuple[str, int]]) -> None:
        try:
            entries = list(os.scandir(pod.spool / self._capture / "eth0"))
        except FileNotFoundError:
            return
        for entry in entries:
            if (pod.name, entry.inode()) in known:
                continue
            with contextlib.suppress(FileNotFoundError):  # renamed just now: the next round
                os.link(entry.path, pod.folder / "archive" / str(entry.inode()))
                known.add((pod.name, entry.inode()))
