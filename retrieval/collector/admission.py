"""Which pod may append to which capture.

The first append of a (capture, pod) is decided by the same function that gives pods their
orders, over the live pod; the stream's folder in the store is from then on the yes, also
for a pod whose labels change or that is going.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from nightcap.contract.assignment import selects
from nightcap.contract.captures import BadCapture, PacketCapture, Settings
from nightcap.contract.objects import Pod
from nightcap.contract.segments import BadName, StreamKey
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.errors import NotFound
from nightcap.kube.reviews import Identity
from retrieval.collector.captures import Captures
from retrieval.store.base import Store, StreamMeta

REFUSAL_SECONDS: Final = 1.0


class NotAllowed(Exception):
    """This pod may not append to this capture, or not yet."""


class CaptureGone(Exception):
    """The API server says that there is no such capture in the pod's namespace."""


class CaptureUnreadable(Exception):
    """The capture is there, in a form that this release does not understand."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A yes.

    Attributes:
        settings: None when the capture's spec cannot be understood; then nothing of it holds.
        new: What to remember of a stream that is to be begun; None of one that has been.
        is_over: The capture breaks a ceiling that came after its stream: what was recorded is
            still taken, and nothing is to be recorded any more.
    """

    stream: StreamKey
    capture: PacketCapture
    settings: Settings | None
    new: StreamMeta | None
    is_over: bool = False


class Admission:
    """Decides about one (capture, pod) at a time."""

    def __init__(
        self, captures: Captures, get_pod: Callable[[str, str], Pod | None], store: Store
    ) -> None:
        """Take the captures, a function that gets a pod (namespace, name) live, and the store."""
        self._captures = captures
        self._get_pod = get_pod
        self._store = store
        self._lock = threading.Lock()
        self._refused: dict[StreamKey, tuple[float, str]] = {}

    def admit(self, identity: Identity, capture_uid: str) -> Admitted:
        """Whether the pod behind an identity may append to a capture.

        Raises:
            NotAllowed, CaptureGone, CaptureUnreadable: no, each with a sentence.
            ApiError: the API server cannot be asked.
        """
        namespace, pod_name, pod_uid = identity.namespace, identity.pod_name, identity.pod_uid
        if not (namespace and pod_name and pod_uid):
            raise NotAllowed("the token is not bound to a pod; mount a projected token")
        try:
            stream = StreamKey(namespace, capture_uid, pod_uid)
        except BadName as error:
            raise NotAllowed(str(error)) from error
        try:
            capture = self._captures.find(namespace, capture_uid)
        except BadCapture as error:
            raise CaptureUnreadable(f"capture {capture_uid} cannot be read: {error}") from error
        if capture is None:
            raise CaptureGone(f"there is no capture {capture_uid} in namespace {namespace}")
        new = None
        if not self._store.has_stream(stream):
            new = self._examine(stream, capture, pod_name)
        settings, is_over = self._captures.settings(capture), self._captures.breaks_rules(capture)
        return Admitted(stream, capture, settings, new, is_over)

    def _examine(self, stream: StreamKey, capture: PacketCapture, pod_name: str) -> StreamMeta:
        """Look at the live pod; a no holds for a moment, so that nobody makes us ask in a loop."""
        with self._lock:
            until, sentence = self._refused.get(stream, (0.0, ""))
        if time.monotonic() < until:
            raise NotAllowed(sentence)
        pod = self._get_pod(stream.namespace, pod_name)
        beyond = self._captures.beyond(capture, time.time())
        fault = refusal(stream, capture, pod_name, pod, beyond)
        if fault is not None:
            with self._lock:
                if len(self._refused) > 10_000:
                    self._refused.clear()
                self._refused[stream] = (time.monotonic() + REFUSAL_SECONDS, fault)
            raise NotAllowed(fault)
        node = pod.spec.node_name if pod is not None else ""
        return StreamMeta(
            pod=pod_name, node=node, capture=capture.metadata.name, ips=addresses_of(pod)
        )

    def addresses(self, stream: StreamKey, pod_name: str) -> tuple[str, ...]:
        """The live pod's addresses; none while the API server knows of none.

        Raises:
            ApiError: the API server cannot be asked.
        """
        pod = self._get_pod(stream.namespace, pod_name)
        return addresses_of(pod) if pod and pod.metadata.uid == stream.pod_uid else ()


def addresses_of(pod: Pod | None) -> tuple[str, ...]:
    """All addresses of a pod, the first one first; one on the host's network has none of its own.

    Args:
        pod: The live pod, if there is one.
    """
    if pod is None or pod.spec.host_network:
        return ()
    all_of_them = [pod.status.ip, *(address.ip for address in pod.status.ips)]
    return tuple(dict.fromkeys(ip for ip in all_of_them if ip))


def refusal(
    stream: StreamKey, capture: PacketCapture, pod_name: str, pod: Pod | None, beyond: str
) -> str | None:
    """Why a pod may not begin a stream of a capture, if it may not.

    Args:
        stream: Namespace and pod uid are those of the token.
        capture: The capture that the pod names.
        pod_name: As the token says.
        pod: The live pod of that name, if there is one.
        beyond: Why the namespace's ceiling forbids the capture; empty if it does not.
    """
    if pod is None:
        return f"there is no pod {pod_name} in namespace {stream.namespace}"
    if pod.metadata.uid != stream.pod_uid:
        return f"pod {pod_name} is another one now"
    if not selects(capture, pod.metadata):
        return f"capture {capture.metadata.name} does not select pod {pod_name}; try later"
    if beyond:
        return f"capture {capture.metadata.name} is not to be recorded: {beyond}"
    return None


def live_pod(client: KubeClient) -> Callable[[str, str], Pod | None]:
    """A function that gets one pod from the API server itself."""

    def get_pod(namespace: str, name: str) -> Pod | None:
        try:
            answer = client.request("GET", paths.pod(namespace, name), timeout=(5, 10))
        except NotFound:
            return None
        return msgspec.json.decode(answer, type=Pod)

    return get_pod
