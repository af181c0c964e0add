"""Segments, captures and reports that show only what matters."""

import json
import random
import struct
from typing import Any

from nightcap.contract.segments import SegmentKey, StreamKey
from retrieval.store.base import ReadableStore, Store, StreamMeta
from retrieval.store.directory import ReadableDirectory
from retrieval.store.objects import ReadableObjects

CAPTURE = "ca9a0000-0000-4000-8000-000000000001"
CALICO = "ca11c000-0000-4000-8000-000000000001"
POD = "90d00000-0000-4000-8000-000000000001"
STREAM = StreamKey("storefront", CAPTURE, POD)
META = StreamMeta(pod="web-0", node="node-a", capture="dns")
FIRST_US = 1_700_000_000_000_000
"""Time of the first packet of `a_pcap`, in microseconds."""
READER = {"Authorization": "Bearer reader"}
"""Headers of the person that the fixture `port` lets in."""
HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)


def a_key(seq: int = 1, interface: str = "eth0", stream: StreamKey = STREAM) -> SegmentKey:
    return SegmentKey(stream, interface, seq)


def a_record(at_us: int, payload: bytes = b"x" * 60) -> bytes:
    return struct.pack("<IIII", *divmod(at_us, 10**6), len(payload), len(payload)) + payload


def a_pcap(packets: int = 3, *, first_us: int = FIRST_US, seed: int = 0) -> bytes:
    source = random.Random(seed)  # noqa: S311 - the same packets each time
    records = (
        a_record(first_us + number * 1000, source.randbytes(source.randint(1, 200)))
        for number in range(packets)
    )
    return HEADER + b"".join(records)


def a_capture(name: str = "dns", uid: str = CAPTURE, **spec: Any) -> dict[str, Any]:
    phase = spec.pop("phase", "Capturing")
    return {
        "apiVersion": spec.pop("api_version", "nightcap.dev/v1alpha1"),
        "metadata": {
            "name": name,
            "namespace": spec.pop("namespace", "storefront"),
            "uid": uid,
            "resourceVersion": "1",
            "creationTimestamp": "2026-11-22T02:00:00Z",
        },
        "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec},
        "status": {"phase": phase},
    }


def a_calico_capture(name: str = "dns", uid: str = CALICO, **spec: Any) -> dict[str, Any]:
    given = {"selector": 'app == "web"', **spec}
    return a_capture(name, uid, api_version="projectcalico.org/v3", **given)


def a_pod(name: str = "web-0", uid: str = POD, app: str = "web") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name, "namespace": "storefront", "uid": uid, "labels": {"app": app},
        },
        "spec": {"nodeName": "node-a"},
    }  # fmt: skip


def a_report(seq: int = 1, state: str = "capturing", **fields: Any) -> str:
    return json.dumps({"v": 1, "seq": seq, "at": 1.5, "state": state, **fields})


def content(store: ReadableStore, seq: int = 1) -> bytes:
    """A whole segment of `STREAM`."""
    with store.open(a_key(seq)) as reader:
        return reader.read_at(0, 2**26)


def names_in(store: Store) -> set[str]:
    """The path of everything that lies in a store."""
    if isinstance(store, ReadableObjects):
        return {found.path for found in store.bucket.list("")}
    assert isinstance(store, ReadableDirectory)
    return {str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()}
