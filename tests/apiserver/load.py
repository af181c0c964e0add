"""Pods that are created without pause, and sidecars that upload without pause; all counted."""

import json
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nightcap.contract import paths as sidecar_paths
from nightcap.contract import uploads
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.errors import ApiError
from sidecar.connection import Body, Connection, ConnectionBroken, trust
from tests.apiserver.private import PrivateApi
from tests.apiserver.site import bare_pod, injected

_PAUSE_SECONDS = 0.01
_SEGMENT = b"".join(
    (
        b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00" + bytes(8) + b"\x00\x00\x04\x00\x01\x00\x00\x00",
        struct.pack("<4I", 1, 0, 4, 4) + b"ping",
    )
)
"""A capture file with one packet."""


@contextmanager
def in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Work in a thread of its own, which is told by an event that it is over."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), name=work.__qualname__)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


@dataclass
class Creating:
    """Creates pods, one after the other; to be run `in_background`."""

    client: KubeClient
    namespace: str
    pod: Callable[[], dict[str, Any]] = bare_pod
    injected: int = 0
    uninjected: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    newest: dict[str, Any] = field(default_factory=dict)

    def run(self, over: threading.Event) -> None:
        while not over.wait(_PAUSE_SECONDS):
            began_at = time.monotonic()
            try:
                answer = self.client.request("POST", paths.pods(self.namespace), body=self.pod())
            except ApiError as error:
                self.refused.append(str(error))
                continue
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began_at)
            pod = json.loads(answer)
            if injected(pod):
                self.injected += 1
                self.newest = pod
            else:
                self.uninjected.append(time.monotonic())


class Sidecar:
    """What the sidecar of one injected pod does when it ships, with what that pod was given.

    The root and the name are those in the pod's environment, the token is bound to the pod. Each
    segment goes over a connection of its own: a handshake each.
    """

    def __init__(self, api: PrivateApi, pod: dict[str, Any], capture: str, port: int) -> None:
        metadata = pod["metadata"]
        (container,) = (c for c in pod["spec"]["initContainers"] if c["name"] == "nightcap")
        environ = {entry["name"]: entry.get("value", "") for entry in container["env"]}
        self.name = environ[sidecar_paths.ENV_COLLECTOR_NAME]
        self.root = environ[sidecar_paths.ENV_COLLECTOR_CA]
        self._context = trust(self.root)
        self._capture, self._port = capture, port
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"]}
        made = api.client.request(
            "POST",
            paths.service_account_token(metadata["namespace"], "default"),
            body={
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"audiences": ["nightcap"], "boundObjectRef": bound},
            },
        )
        self._token = json.loads(made)["status"]["token"]
        self._fd = os.memfd_create("segment")
        os.write(self._fd, _SEGMENT)
        self.uploads = 0
        self.failed: list[str] = []

    def close(self) -> None:
        os.close(self._fd)

    def upload(self) -> None:
        """Ship one segment."""
        segment = uploads.SegmentName(self._capture, "eth0", self.uploads + len(self.failed) + 1)
        headers = {
            "Authorization": f"Bearer {self._token}",
            uploads.OFFSET: "0",
            uploads.COMPLETE: uploads.format_boolean(True),
        }
        try:
            connection = Connection(
                ("127.0.0.1", self._port), name=self.name, context=self._context, port=0
            )
            try:
                body = Body(self._fd, 0, len(_SEGMENT))
                answer = connection.request("PATCH", uploads.upload_path(segment), headers, body)
            finally:
                connection.close()
        except ConnectionBroken as error:
            self.failed.append(str(error))
            return
        if answer.status == 204:
            self.uploads += 1
        else:
            self.failed.append(f"{answer.status} {answer.text}")
