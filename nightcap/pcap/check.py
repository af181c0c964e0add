"""Say whether a filter compiles: expression on stdin, one line of JSON on stdout.

Arguments: the link type, Ethernet without one; seconds of CPU, the limit below without them.

Run as a process of its own with limits on CPU and memory (`bounded` starts it): an
expression comes from strangers and meets a compiler written in C.
"""

import json
import resource
import signal
import sys
from pathlib import Path

MAX_CPU_SECONDS = 1
MAX_MEMORY_BYTES = 256 * 2**20
MAX_EXPRESSION_BYTES = 65536


def main() -> int:
    """Compile what stdin holds; always answers, unless a limit ends it."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS))
    if len(sys.argv) > 2:
        signal.setitimer(signal.ITIMER_PROF, float(sys.argv[2]))  # its signal ends the process
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from nightcap.pcap.libpcap import EN10MB, PcapError, compile_filter

    expression = sys.stdin.buffer.read(MAX_EXPRESSION_BYTES).decode("utf-8", "surrogateescape")
    linktype = int(sys.argv[1]) if len(sys.argv) > 1 else EN10MB
    try:
        compile_filter(expression, linktype=linktype)
    except PcapError as error:
        answer: dict[str, object] = {"error": str(error)}
    else:
        answer = {"ok": True}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    # Started by path under `python -I -S -E`: nothing but the standard library is on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
