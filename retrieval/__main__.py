"""`python -m retrieval collector` and `... files`: two containers of one pod; and `... gateway`."""

import argparse
import os
import resource
import sys

from nightcap.kube.logs import setup_logging
from retrieval.settings import METRICS_PORTS, BadSettings, Settings


def main(arguments: list[str] | None = None) -> int:
    """Run one of the programs until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m retrieval", description=__doc__)
    parser.add_argument("program", choices=sorted([*METRICS_PORTS, "gateway"]))
    program = parser.parse_args(arguments).program
    log = setup_logging(f"retrieval-{program}")
    if program == "gateway":
        from retrieval.gateway import main as gateway

        return gateway()
    try:
        settings = Settings.from_environ(os.environ, program)
    except BadSettings as error:
        log.error("settings are wrong", extra={"faults": str(error)})  # noqa: TRY400 - no traceback
        return 2
    _allow_open_files()
    if program == "collector":
        from retrieval.collector.program import run
    else:
        from retrieval.files.program import run
    run(settings)
    return 0


def _allow_open_files() -> None:
    """A zip holds all its files open; the soft limit of 1 024 is for programs that use select."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
