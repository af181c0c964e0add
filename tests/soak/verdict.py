"""What became of every byte and every packet."""

from __future__ import annotations

import io
import json
import os
import subprocess
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from nightcap.contract.segments import StreamKey
from nightcap.pcap.formats import HEADER_BYTES, PcapReader
from retrieval.store.directory import ReadableDirectory
from tests.soak.pods import NAMESPACE, SoakPod

_SLACK_SECONDS = 1.0
"""What a worker had not read from the kernel when it was killed may be so old."""


@dataclass
class Verdict:
    """Counts over all pods, and every fault as a sentence."""

    sent: int = 0
    recorded: int = 0
    in_gaps: int = 0
    dropped: int = 0
    lost_segments: int = 0
    segments: int = 0
    stored_bytes: int = 0
    opened: int = 0
    faults: list[str] = field(default_factory=list)


def judge(pods: Sequence[SoakPod], capture: str, store: Path, download: Path) -> Verdict:
    """Compare what every spool ever held with the store, the download, and what was sent."""
    verdict = Verdict()
    for pod in pods:
        _judge_pod(pod, capture, store, verdict)
    _judge_download(store, capture, download, verdict)
    return verdict


def _judge_pod(pod: SoakPod, capture: str, store: Path, verdict: Verdict) -> None:
    stream = StreamKey(NAMESPACE, capture, pod.uid)
    readable = ReadableDirectory(store)
    stored: Counter[str] = Counter()
    numbers: list[int] = []
    for segment in readable.segments(stream):
        data = (store / segment.key.path).read_bytes() if segment.complete else b""
        if not segment.complete:
            verdict.faults.append(f"{pod.name}: segment {segment.key.seq} was never completed")
            continue
        stored[sha256(data).hexdigest()] += 1
        numbers += _numbers(data, f"{pod.name}/{segment.key.seq}", verdict)
        verdict.segments += 1
        verdict.stored_bytes += len(data)
    witnessed: Counter[str] = Counter()
    for path in (pod.folder / "archive").iterdir():
        data = path.read_bytes()
        # Without a whole packet it was no segment: the worker has removed it.
        if len(data) > HEADER_BYTES and any(True for _ in PcapReader(io.BytesIO(data))):
            witnessed[sha256(data).hexdigest()] += 1
    for missing in (witnessed - stored).elements():
        verdict.faults.append(f"{pod.name}: a segment of the spool is not stored: {missing[:12]}")
    for surplus in (stored - witnessed).elements():
        verdict.faults.append(f"{pod.name}: stored is what no spool held: {surplus[:12]}")
    report = json.loads(readable.report(stream) or b"{}").get("report", {})
    verdict.dropped += int(report.get("dropped", 0))
    verdict.lost_segments += int(report.get("lost", {}).get("segments", 0))
    if not report.get("shipped"):
        verdict.faults.append(f"{pod.name}: its last report does not say that all is shipped")
    if report.get("packets") != len(numbers):
        verdict.faults.append(f"{pod.name}: {report.get('packets')} reported, {len(numbers)} there")
    _judge_numbers(pod, numbers, int(report.get("dropped", 0)), verdict)


def _numbers(data: bytes, what: str, verdict: Verdict) -> list[int]:
    reader = PcapReader(io.BytesIO(data))
    numbers = [int.from_bytes(record.data[42:50], "big") for record in reader]
    if reader.damage:
        verdict.faults.append(f"{what}: {reader.damage}")
    return numbers


def _judge_numbers(pod: SoakPod, numbers: list[int], dropped: int, verdict: Verdict) -> None:
    verdict.sent += len(pod.sent)
    verdict.recorded += len(numbers)
    there = set(numbers)
    if len(there) != len(numbers):
        verdict.faults.append(f"{pod.name}: {len(numbers) - len(there)} packets are there twice")
    unexplained = 0
    for first, last in _gaps(there, len(pod.sent)):
        begin, end = pod.sent[first] - _SLACK_SECONDS, pod.sent[last] + _SLACK_SECONDS
        if any(begin <= kill <= end for kill in pod.kills):
            verdict.in_gaps += last - first + 1
        else:
            unexplained += last - first + 1
    if unexplained > dropped:
        verdict.faults.append(f"{pod.name}: {unexplained} packets missing, {dropped} dropped")


def _gaps(there: set[int], count: int) -> Iterator[tuple[int, int]]:
    """First and last number of each run of missing ones."""
    first = -1
    for number in range(count + 1):
        if number < count and number not in there:
            first = number if first < 0 else first
        elif first >= 0:
            yield first, number - 1
            first = -1


def _judge_download(store: Path, capture: str, download: Path, verdict: Verdict) -> None:
    expected = Counter(
        sha256(path.read_bytes()).hexdigest()
        for path in (store / NAMESPACE / capture).rglob("*.pcap")
    )
    with zipfile.ZipFile(download) as archive:
        found = Counter(sha256(archive.read(name)).hexdigest() for name in archive.namelist())
    if found != expected:
        verdict.faults.append(f"the download has {found.total()} files, stored {expected.total()}")


def open_in_tshark(store: Path, capture: str, most: int, verdict: Verdict) -> None:
    """Let tshark read every file to its end, or `most` of them, evenly taken."""
    files = sorted((store / NAMESPACE / capture).rglob("*.pcap"))
    step = max(1, len(files) // most) if most else 1
    # It takes a third of a second to start, and nothing else is left to do: one for each core.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for fault in threads.map(_tshark_fault, files[::step]):
            verdict.opened += 1
            if fault:
                verdict.faults.append(fault)


def _tshark_fault(file: Path) -> str:
    done = subprocess.run(
        ["tshark", "-n", "-r", str(file), "-T", "fields", "-e", "frame.number"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    with file.open("rb") as opened:
        packets = sum(1 for _ in PcapReader(opened))
    if done.returncode == 0 and len(done.stdout.splitlines()) == packets:
        return ""
    return f"tshark does not open {file}: {done.stderr[-200:]}"
