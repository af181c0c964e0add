"""Run benchmarks.

python -m bench [NAME ...]               all, or these; results on stdout, progress on stderr
python -m bench --save [NAME ...]        and keep the results in bench/results/
python -m bench --quick [NAME ...]       a tenth of everything, to see that it works
python -m bench --list                   the names
python -m bench --table FILE ...         render the README's table from result lines
python -m bench --readme                 put the table of bench/results/ into the pages that show it
"""

import argparse
import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import benchmarks, table
from bench.building import ROOT
from bench.effort import QUICK, Effort
from bench.machine import busy_share
from bench.result import say

_RESULTS = ROOT / "bench" / "results"
_PAGES = (ROOT / "bench" / "README.md", ROOT / "docs" / "performance.md")
_BUSY = 0.25


def names() -> list[str]:
    """All benchmarks."""
    found = pkgutil.iter_modules(benchmarks.__path__)
    return sorted(module.name.replace("_", "-") for module in found)


def run(name: str, effort: Effort, *, save: bool) -> bool:
    """Run one; prints a line for each point. Returns whether every goal was met."""
    module = importlib.import_module(f"bench.benchmarks.{name.replace('-', '_')}")
    if busy_share() > _BUSY:
        say(f"the machine is busy (load {os.getloadavg()[0]:.1f}): {name} may measure its noise")
    lines, all_met = [], True
    for result in module.run(effort):
        lines.append(result.line())
        all_met = all_met and result.met
        print(lines[-1], flush=True)
    if save:
        (_RESULTS / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return all_met


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--readme", action="store_true")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(names()))
        return 0
    if options.table:
        print(table.render(table.read(options.table)))
        return 0
    if options.readme:
        rendered = table.render(table.read(sorted(_RESULTS.glob("*.jsonl"))))
        for page in _PAGES:
            table.put_into(page, rendered)
        return 0
    if options.save and options.quick:
        parser.error("--save keeps figures that count: not those of --quick")
    unknown = set(options.names) - set(names())
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    # Whoever ends us wants the namespaces and processes gone as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    missed = [
        name
        for name in options.names or names()
        if not run(name, QUICK if options.quick else Effort(), save=options.save)
    ]
    if missed:
        say(f"goals not met: {', '.join(missed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
