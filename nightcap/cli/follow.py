"""`follow`: packets as they arrive, into Wireshark, a terminal, a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nightcap.cli import output as _out
from nightcap.cli import viewers
from nightcap.cli.options import capture_argument, cluster_options, pods_option, session_of
from nightcap.cli.session import Fault, Session

if TYPE_CHECKING:
    from nightcap.cli.reach import Retrieval

Command = TypeVar("Command", bound=Callable[..., Any])

with_option = click.option(
    "--with", "viewer", type=click.Choice(viewers.CHOICES), metavar="|".join(viewers.CHOICES),
    help="What shows the packets; in a terminal the default is tshark, or text without it.",
)  # fmt: skip
write_option = click.option(
    "-w", "--write", metavar="FILE", help="Write them to a file instead; - is standard output."
)
account_option = click.option(
    "--as-service-account", "account", metavar="NAME",
    help="Ask as this service account, by a token of ten minutes.",
)  # fmt: skip


@click.command()
@capture_argument()
@pods_option
@click.option("-f", "--filter", "expression", metavar="EXPRESSION",
              help="Only packets that pass this pcap-filter(7).")  # fmt: skip
@with_option
@write_option
@account_option
@cluster_options
@click.pass_context
def follow(
    context: click.Context,
    name: str,
    pods: tuple[str, ...],
    expression: str | None,
    viewer: str | None,
    write: str | None,
    account: str | None,
) -> None:
    r"""Show what a capture records, of all its pods, from its first packet on and as packets
    arrive, a second or two behind. Into a pipe goes pcapng.

    Ctrl-C ends the looking, not the capture: `kubectl nightcap stop` does that.

    \b
    kubectl nightcap follow dns
    kubectl nightcap follow dns --with wireshark
    kubectl nightcap follow dns --pod checkout-7d4f -f 'tcp port 443' -w checkout.pcapng
    """
    session = session_of(context)
    chosen = choose_viewer(viewer, write)
    retrieval = live_retrieval(session, account)
    try:
        watch(session, retrieval, name, chosen, pods, expression)
    except KeyboardInterrupt:
        say_goes_on(session, name)
        raise
    # Without Ctrl-C: it is over, a window was closed, or a right or token came to its end.
    say_goes_on(session, name)


def choose_viewer(viewer: str | None, write: str | None) -> viewers.Viewer:
    """What `--with` and `-w` mean here.

    Raises:
        click.UsageError: both are given.
        Fault: the program is not there.
    """
    from shutil import which

    if viewer is not None and write is not None:
        raise click.UsageError("give --with (a program) or -w (a file), not both")
    return viewers.choose(viewer, write, terminal=sys.stdout.isatty(), find=which)


def live_retrieval(session: Session, account: str | None) -> Retrieval:
    """Retrieval, with a token that lasts for an answer that goes on."""
    from nightcap.cli import reach

    return reach.Retrieval(session, account, reach.LONG_TOKEN_SECONDS)


def watch(
    session: Session,
    retrieval: Retrieval,
    name: str,
    viewer: viewers.Viewer,
    pods: tuple[str, ...] = (),
    expression: str | None = None,
) -> None:
    """Show a capture until it is over, or nobody looks any more.

    Raises:
        Fault: retrieval refuses, or what it sends cannot be shown.
        KeyboardInterrupt: the person has seen enough.
    """
    from nightcap.cli import reach

    query = [("pod", pod) for pod in pods]
    if expression:
        query.append(("filter", expression))
    path = reach.capture_path(session.namespace, name, "live.pcapng")
    with retrieval.open(path, query) as download:
        pour(download, viewer)


class After(StrEnum):
    """What becomes of a capture when whoever started it looks no more."""

    GO_ON = "go on"
    STOP = "stop"
    REMOVE = "remove"


def follow_new(
    session: Session,
    retrieval: Retrieval,
    capture: dict[str, Any],
    viewer: viewers.Viewer,
    after: After,
) -> None:
    """Show a capture that has just been made, then do with it what was said.

    Raises:
        Fault: it cannot be shown; it was dealt with all the same.
        KeyboardInterrupt: the person has seen enough.
    """
    name = capture["metadata"]["name"]
    try:
        watch(session, retrieval, name, viewer)
    finally:
        leave(session, capture, after)


def leave(session: Session, capture: dict[str, Any], after: After) -> None:
    """Stop or delete a capture that is not looked at any more, or say that it goes on."""
    from nightcap.kube import paths
    from nightcap.kube.errors import Conflict, NotFound

    name, uid = capture["metadata"]["name"], capture["metadata"]["uid"]
    path = paths.packetcapture(session.namespace, name)
    try:
        match after:
            case After.GO_ON:
                say_goes_on(session, name)
            case After.STOP:
                session.patch(path, {"metadata": {"uid": uid}, "spec": {"suspend": True}}, "none")
                _out.note(f"{name} stopped; its files stay")
            case After.REMOVE:
                session.delete(path, uid)
                _out.note(f"{name} deleted, with its files")
    except (NotFound, Conflict):
        _out.note(f"{name} was deleted meanwhile")


def pour(pieces: Iterable[bytes], viewer: viewers.Viewer) -> None:
    """Show pieces; errors of the place where they go are told as such."""
    try:
        viewers.pour(pieces, viewer)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Fault(
            f"{error.filename or 'the packets'}: {error.strerror}; choose another file with -w"
        ) from error


def say_goes_on(session: Session, name: str) -> None:
    """What is left when somebody stops looking; silent when it is over."""
    from nightcap.kube import paths
    from nightcap.kube.errors import ApiError

    try:
        capture = session.get(paths.packetcapture(session.namespace, name))
    except ApiError:
        return
    if (capture.get("status") or {}).get("phase") in ("Finished", "Error"):
        return
    _out.note(
        f"{name} goes on; end it: kubectl nightcap stop {name} -n {session.namespace}; "
        f"fetch it: kubectl nightcap get {name} -n {session.namespace}"
    )
