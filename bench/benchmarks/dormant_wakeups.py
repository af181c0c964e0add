"""How often a sidecar without orders wakes up."""

import time
from collections.abc import Iterator

from bench.effort import Effort
from bench.result import Result, say
from bench.sleepers import proc_number, sleeping

NAME = "dormant-wakeups"
_SLEEPERS = 20


def run(effort: Effort) -> Iterator[Result]:
    """Voluntary context switches in 60 s: the worst of 20 processes."""
    seconds = effort.of(60)
    with sleeping(_SLEEPERS) as pids:
        say(f"{NAME}: watching {_SLEEPERS} processes for {seconds} s")
        before = [proc_number(pid, "status", "voluntary_ctxt_switches") for pid in pids]
        time.sleep(seconds)
        after = [proc_number(pid, "status", "voluntary_ctxt_switches") for pid in pids]
    switches = [new - old for old, new in zip(before, after, strict=True)]
    yield Result(
        name=NAME,
        ours=max(switches),
        unit=f"wake-ups in {seconds} s, most of {_SLEEPERS}",
        goal="0",
        met=max(switches) == 0,
        runs=_SLEEPERS,
        spread=(min(switches), max(switches)),
    )
