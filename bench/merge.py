"""merge: pcaps of 20 pods into one pcapng, as retrieval does it, beside mergecap.

python -m bench.merge [ROUNDS]      one line of JSON for each size of packets; progress on stderr

Both read the same files and write to /dev/null; per core is per CPU second, user and
system. Ours finds and lists the files in the store as well.
"""

import json
import os
import platform
import random
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from nightcap.contract.segments import SegmentKey, StreamKey
from retrieval.files.catalog import Catalog
from retrieval.files.merged import Cast, Title, merged_pieces
from retrieval.files.packets import Filters
from retrieval.files.wanted import Wanted
from retrieval.store.base import StreamMeta
from retrieval.store.directory import ReadableDirectory
from retrieval.store.writing import DirectoryStore

PODS = 20
FILES_OF_A_POD = 3
GOAL = 400_000
_NAMESPACE, _CAPTURE = "bench", "ca9a0000-0000-4000-8000-000000000001"
_START = 1_700_000_000 * 10**9


def fill(folder: Path, frame_bytes: int, packets_of_a_pod: int) -> int:
    """Write a store of interleaved packets; how many."""
    source = random.Random(frame_bytes)  # noqa: S311 - the same packets each time
    store = DirectoryStore(folder)
    for pod in range(PODS):
        stream = StreamKey(_NAMESPACE, _CAPTURE, f"90d00000-0000-4000-8000-{pod:012d}")
        store.create_stream(stream, StreamMeta(pod=f"pod-{pod}", node="node", capture="bench"))
        time_ns = _START
        for seq in range(FILES_OF_A_POD):
            path = folder / SegmentKey(stream, "eth0", seq).path
            path.parent.mkdir(exist_ok=True)
            with path.open("wb") as file:
                file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
                for _ in range(packets_of_a_pod // FILES_OF_A_POD):
                    time_ns += source.randrange(1, 2_000_000)
                    head = struct.pack("<IIII", *divmod(time_ns, 10**9), frame_bytes, frame_bytes)
                    file.write(head + bytes(frame_bytes))
    store.close()
    return packets_of_a_pod // FILES_OF_A_POD * FILES_OF_A_POD * PODS


def merge_once(folder: Path) -> None:
    """What one answer does, in a process of its own; says how much CPU and memory it took."""
    store = ReadableDirectory(folder)
    with ExitStack() as stack, Path(os.devnull).open("wb") as out:
        before = _cpu_seconds(resource.RUSAGE_SELF)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        files = Catalog(store).files(_NAMESPACE, _CAPTURE)
        filters = Filters("", lambda *_: None)
        title = Title(_NAMESPACE, "bench")
        for piece in merged_pieces(store, files, Wanted(), filters, title, Cast(), stack):
            out.write(piece)
        spent = _cpu_seconds(resource.RUSAGE_SELF) - before
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    print(json.dumps([spent, grown / 1024]))


def measure(frame_bytes: int, packets_of_a_pod: int, rounds: int) -> dict[str, object]:
    """Both in turn, `rounds` times."""
    ours, peer, grown = [], [], []
    with tempfile.TemporaryDirectory(prefix="nightcap-bench-") as name:
        folder = Path(name)
        packets = fill(folder, frame_bytes, packets_of_a_pod)
        pcaps = sorted(str(path) for path in folder.rglob("*.pcap"))
        for number in range(rounds):
            command = [sys.executable, "-m", "bench.merge", "--once", name]
            done = subprocess.run(command, capture_output=True, check=True)
            spent, mebibytes = json.loads(done.stdout)
            ours.append(packets / spent)
            grown.append(mebibytes)
            before = _cpu_seconds(resource.RUSAGE_CHILDREN)
            subprocess.run(
                ["mergecap", "-F", "pcapng", "-I", "none", "-w", os.devnull, *pcaps],
                check=True,
                capture_output=True,
            )
            peer.append(packets / (_cpu_seconds(resource.RUSAGE_CHILDREN) - before))
            print(
                f"bench: round {number + 1} of {rounds}, {frame_bytes} B: {ours[-1]:,.0f} packets/s"
                f" per core and {grown[-1]:.1f} MiB, mergecap {peer[-1]:,.0f}",
                file=sys.stderr,
                flush=True,
            )
    value = statistics.median(ours)
    return {
        "name": "merge",
        "point": f"{frame_bytes} B",
        "ours": round(value),
        "peer": round(statistics.median(peer)),
        "peer_name": "mergecap -F pcapng -I none",
        "ratio": round(statistics.median(a / b for a, b in zip(ours, peer, strict=True)), 3),
        "unit": "packets/s per core",
        "goal": f">= {GOAL}",
        "met": value >= GOAL,
        "runs": rounds,
        "spread": [round(min(ours)), round(max(ours))],
        "peer_spread": [round(min(peer)), round(max(peer))],
        "detail": {"packets": packets, "memory_grown_mib": round(max(grown), 1)},
        "machine": f"{os.cpu_count()} cores {platform.machine()}, Linux",
    }


def _cpu_seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def points(rounds: int) -> Iterator[dict[str, object]]:
    """All points of the row."""
    yield measure(64, 60_000, rounds)
    yield measure(1400, 15_000, rounds)


def main() -> int:
    """The command line."""
    if sys.argv[1:2] == ["--once"]:
        merge_once(Path(sys.argv[2]))
        return 0
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    met = True
    for line in points(rounds):
        print(json.dumps(line), flush=True)
        met = met and bool(line["met"])
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
