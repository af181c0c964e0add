"""A store full of packets, and one process that merges it as retrieval does for an answer.

python -m bench.merging FOLDER      merge; one line of JSON on stdout: CPU seconds, MiB grown
"""

import json
import os
import random
import resource
import struct
import sys
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


def merge(folder: Path) -> None:
    """What one answer does; says how much CPU and memory it took."""
    store = ReadableDirectory(folder)
    with ExitStack() as stack, Path(os.devnull).open("wb") as out:
        before = cpu_seconds(resource.RUSAGE_SELF)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        files = Catalog(store).files(_NAMESPACE, _CAPTURE)
        filters = Filters("", lambda *_: None)
        title = Title(_NAMESPACE, "bench")
        for piece in merged_pieces(store, files, Wanted(), filters, title, Cast(), stack):
            out.write(piece)
        spent = cpu_seconds(resource.RUSAGE_SELF) - before
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    print(json.dumps([spent, grown / 1024]))


def cpu_seconds(who: int) -> float:
    """User and system time of this process or of its children."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    merge(Path(sys.argv[1]))
