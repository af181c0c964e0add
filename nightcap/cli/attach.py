"""`attach`: packets of a pod that runs already without a sidecar, streamed to the caller.

An ephemeral container of the sidecar's image is added, and in it the capture is run by exec: all by
the caller's own rights, and without Nightcap's servers. Exec and not attach, because what a
container itself writes is in its log on the node.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from nightcap.cli import ephemeral
from nightcap.cli import output as _out
from nightcap.cli.follow import choose_viewer, pour, with_option, write_option
from nightcap.cli.options import cluster_options, dry_run_option, pod_argument, session_of
from nightcap.cli.session import SYSTEM, Fault, Session, dry_run_mark, dry_run_query

if TYPE_CHECKING:
    from nightcap.contract.confinement import Profile
    from nightcap.contract.streaming import Stream
    from nightcap.kube.execution import Execution

_START_SECONDS: Final = 90
_LOOK_SECONDS: Final = 0.3
_MAX_SECONDS: Final = 86400
_RIGHTS: Final = (
    "attach needs patch on pods/ephemeralcontainers, and get and create on pods/exec, in namespace "
    "{namespace}: ask whoever administers it"
)


@click.command()
@pod_argument
@click.option("-f", "--filter", "expression", metavar="EXPRESSION", help="pcap-filter(7).")
@click.option("--duration", metavar="TIME", default="1h", help="At most so long; default 1h.")
@click.option("--snap-length", type=int, metavar="BYTES", help="Bytes kept of each packet.")
@click.option("-i", "--interface", metavar="NAME",
              help="Default: the one beside lo, or `any` where there are several.")  # fmt: skip
@click.option("--image", metavar="IMAGE", help="Of the sidecar; default: the installation's.")
@with_option
@write_option
@dry_run_option
@cluster_options
@click.pass_context
def attach(
    context: click.Context,
    pod: str,
    expression: str | None,
    duration: str,
    snap_length: int | None,
    interface: str | None,
    image: str | None,
    viewer: str | None,
    write: str | None,
    dry_run: str,
) -> None:
    r"""Show the packets of a pod that has no sidecar, as they arrive, without a restart.

    An ephemeral container is added to the pod; it ends with the capture, but as all ephemeral
    containers it stays in the pod's description. Needs no Nightcap in the namespace, only your
    own right to do this.

    \b
    kubectl nightcap attach checkout-7d4f
    kubectl nightcap attach checkout-7d4f -f 'udp port 53' --duration 10m -w dns.pcap
    kubectl nightcap attach checkout-7d4f --with wireshark
    """
    session = session_of(context)
    stream = _stream(expression, duration, snap_length, interface)
    chosen = choose_viewer(viewer, write)
    found = _find_pod(session, pod)
    objection = ephemeral.objection(found)
    if objection:
        raise Fault(objection)
    added = _add(session, found, image or _image(session), stream.seconds, dry_run)
    if dry_run != "none":
        click.echo(f"pod/{pod} gets container {added}{dry_run_mark(dry_run)}")
        return
    _wait_running(session, pod, added)
    from nightcap.contract.paths import ERRAND_PROGRAM
    from nightcap.contract.streaming import dump_stream
    from nightcap.kube.errors import Forbidden
    from nightcap.kube.execution import execute

    command = [ERRAND_PROGRAM, "stream", dump_stream(stream)]
    try:
        running = execute(session.official, session.namespace, pod, added, command, stdin=True)
    except Forbidden as error:
        raise Fault(_refused(session, error.message)) from error
    with running:
        said = _Said(pod)
        pour(_packets(running, said), chosen)
        said.check(running)


def _stream(
    expression: str | None, duration: str, snap_length: int | None, interface: str | None
) -> Stream:
    from nightcap.contract.quantities import BadQuantity, parse_duration
    from nightcap.contract.streaming import MAX_SNAP, BadStream, Stream

    try:
        return Stream(
            seconds=math.ceil(parse_duration(duration)),
            filter=expression or "",
            snap=MAX_SNAP if snap_length is None else snap_length,
            interface=interface or "",
        )
    except (BadQuantity, BadStream) as error:
        raise Fault(str(error)) from error


def _find_pod(session: Session, name: str) -> dict[str, Any]:
    from nightcap.kube import paths
    from nightcap.kube.errors import NotFound

    try:
        return session.get(paths.pod(session.namespace, name))
    except NotFound as error:
        raise Fault(
            f"pod {name!r} does not exist in namespace {session.namespace}; "
            f"kubectl -n {session.namespace} get pods shows what does"
        ) from error


def _image(session: Session) -> str:
    """The sidecar's image: of a sidecar nearby, or what the webhook would inject."""
    from nightcap.kube import paths
    from nightcap.kube.errors import ApiError

    try:
        image = ephemeral.image_of_sidecars(list(session.items(paths.pods(session.namespace))))
        if image is None:
            deployment = session.get(paths.deployment(SYSTEM, "nightcap-webhook"))
            image = ephemeral.image_of_webhook(deployment)
    except ApiError:
        image = None
    if image is None:
        raise Fault(
            f"no pod of namespace {session.namespace} has a sidecar, and the webhook in {SYSTEM} "
            "may not be looked at: name the sidecar's image with --image"
        )
    return image


def _add(session: Session, pod: dict[str, Any], image: str, seconds: int, dry_run: str) -> str:
    """Add the container; returns its name."""
    from nightcap.kube import paths
    from nightcap.kube.errors import ApiError, Forbidden

    level: str | None = None
    try:
        namespace = session.get(paths.namespace(session.namespace))
        level = (namespace["metadata"].get("labels") or {}).get(ephemeral.ENFORCE)
    except ApiError:
        level = None  # then it is found out by trying
    said = ""
    for profile in ephemeral.profiles(level):
        try:
            return _patch(session, pod, image, profile, seconds, dry_run)
        except Forbidden as error:
            said = error.message
            if "violates PodSecurity" not in said:
                raise Fault(_refused(session, said)) from error
    raise Fault(
        f"Pod Security in namespace {session.namespace} allows no packet capture"
        f"{f' ({said})' if said else f' (level {level})'}: it needs root and NET_RAW, which the "
        "level restricted forbids; capture at the other end of the connection, or ask for "
        "baseline there"
    )


def _patch(
    session: Session,
    pod: dict[str, Any],
    image: str,
    profile: Profile,
    seconds: int,
    dry_run: str,
) -> str:
    from nightcap.kube import paths
    from nightcap.kube.agent import STRATEGIC_PATCH

    name = ephemeral.next_name(pod)
    wanted = ephemeral.container(pod, name, image, profile, seconds)
    if dry_run != "client":
        session.client.request(
            "PATCH",
            paths.pod_ephemeral_containers(session.namespace, pod["metadata"]["name"]),
            query=dry_run_query(dry_run),
            body={
                # Not a pod that took its name meanwhile.
                "metadata": {"uid": pod["metadata"]["uid"]},
                "spec": {"ephemeralContainers": [wanted]},
            },
            content_type=STRATEGIC_PATCH,
        )
    return name


def _refused(session: Session, said: str) -> str:
    return f"{said}; {_RIGHTS.format(namespace=session.namespace)}"


def _wait_running(session: Session, pod: str, name: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            if ephemeral.is_running(_find_pod(session, pod), name):
                return
        except ValueError as error:
            raise Fault(f"pod {pod}: {error}") from error
        if time.monotonic() > deadline:
            raise Fault(
                f"pod {pod}: container {name} does not run after {_START_SECONDS} s; "
                f"kubectl -n {session.namespace} describe pod {pod} says why"
            )
        time.sleep(_LOOK_SECONDS)


class _Said:
    """What the capture says of itself beside the packets."""

    def __init__(self, pod: str) -> None:
        self._pod = pod
        self._rest = b""
        self._is_open = False
        self._fault = ""
        self.is_over = False
        """All that came was seen; otherwise somebody looked away before."""

    def hear(self, data: bytes) -> None:
        from nightcap.contract.streaming import STREAM_OPEN, STREAM_OVER

        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                said = json.loads(line)
                event = said["event"]
            except (ValueError, LookupError, TypeError):
                self._fault = line.decode("utf-8", "replace")
                continue
            if event == STREAM_OPEN:
                self._is_open = True
                _out.note(f"capturing in pod/{self._pod}, {said['interface']}; Ctrl-C ends it")
            elif event == STREAM_OVER:
                packets = "1 packet" if said["packets"] == 1 else f"{said['packets']} packets"
                _out.note(f"{packets}, {said['dropped']} dropped by the kernel")
            elif said.get("level") == "error":
                self._fault = str(said.get("message") or event)

    def check(self, running: Execution) -> None:
        """Refuse an end that is none.

        Raises:
            Fault: it never began, failed, or the connection broke.
        """
        if self._fault:
            raise Fault(f"pod {self._pod}: {self._fault}")
        if not self.is_over:
            return
        if running.exit_code is None and self._is_open:
            raise Fault(
                f"pod {self._pod}: the connection ended before the capture; the pod may have "
                "ended, attach again if it runs"
            )
        if not self._is_open:
            raise Fault(
                f"pod {self._pod}: nothing was captured {running.message}: is the image Nightcap's "
                "sidecar, of a release that knows attach?"
            )


def _packets(running: Execution, said: _Said) -> Iterator[bytes]:
    from nightcap.kube.execution import Channel

    for channel, data in running:
        if channel is Channel.OUT:
            yield data
        else:
            said.hear(data)
    said.is_over = True
