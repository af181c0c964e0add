"""The command line: `python -m tests.cluster build | up | down | status | images | env`.

Progress goes to standard error; what another program may read goes to standard output.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable

from tests.cluster import build, cluster, images
from tests.cluster.cleanup import leftovers
from tests.cluster.errors import ClusterError
from tests.cluster.paths import every_number
from tests.cluster.progress import to_stderr


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, help_text) in COMMANDS.items():
        command = commands.add_parser(name, help=help_text)
        if name == "down":
            command.add_argument("--all", action="store_true", help="of every number")
        if name == "images":
            command.add_argument("names", nargs="*", metavar="NAME", default=images.IMAGE_NAMES)
    options = parser.parse_args(arguments)
    run, _ = COMMANDS[options.command]
    try:
        return run(options)
    except ClusterError as error:
        to_stderr(str(error))
        return 1
    except KeyboardInterrupt:
        to_stderr("interrupted")
        return 130


def _build(_options: argparse.Namespace) -> int:
    build.build_for_tests(to_stderr)
    images.build_images()
    return 0


def _up(_options: argparse.Namespace) -> int:
    cluster.up()
    return 0


def _down(options: argparse.Namespace) -> int:
    if not options.all:
        cluster.down()
        return 0
    # A number is for a whole process, so each gets one.
    numbers = sorted({0, *every_number()})
    ended = [
        subprocess.run(
            [sys.executable, "-m", "tests.cluster", "down"],
            env={**os.environ, "NIGHTCAP_CLUSTER_NUMBER": str(number)},
            check=False,
        ).returncode
        for number in numbers
    ]
    return max(ended)


def _status(_options: argparse.Namespace) -> int:
    """Print each program's state; 0 when the cluster is whole and healthy, 3 when it is not."""
    if cluster.find_running() is None and not leftovers():
        print("down, and nothing of it is left")
        return 3
    for name, state in cluster.status().items():
        print(f"{name:24} {state}")
    healthy = cluster.find_running() is not None
    print("healthy" if healthy else "not healthy; the next `up` boots it anew")
    return 0 if healthy else 3


def _images(options: argparse.Namespace) -> int:
    """Print each image's short and full name; load them into the cluster if it runs."""
    unknown = set(options.names) - set(images.IMAGE_NAMES)
    if unknown:
        raise ClusterError(
            f"no image is called {', '.join(sorted(unknown))}; there are "
            f"{', '.join(images.IMAGE_NAMES)}"
        )
    references = images.build_images(names=options.names)
    running = cluster.find_running()
    if running is not None:
        running.load_images(images.archives(references.values()))
    for name, reference in references.items():
        print(f"{name} {reference}")
    return 0


def _env(_options: argparse.Namespace) -> int:
    running = cluster.find_running()
    if running is None:
        raise ClusterError("the cluster does not run; boot it with `up`")
    print(f"export KUBECONFIG={running.kubeconfig}")
    print(f'export PATH="{running.kubectl.parent}:$PATH"')
    return 0


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "build": (_build, "build what the tests need: programs, base image, images"),
    "up": (_up, "boot the cluster, or find it running; builds what is missing"),
    "down": (_down, "end the cluster without a trace"),
    "status": (_status, "say what runs"),
    "images": (_images, "build the project's images; load them if the cluster runs"),
    "env": (_env, "print the shell lines that point kubectl at the cluster"),
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
