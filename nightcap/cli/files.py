"""`get` and `files`: what was recorded, fetched through the API server and checked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from nightcap.cli import output as _out
from nightcap.cli import words
from nightcap.cli.follow import account_option
from nightcap.cli.options import (
    capture_argument,
    cluster_options,
    output_option,
    pods_option,
    session_of,
)
from nightcap.cli.progress import progress
from nightcap.cli.session import Fault, Session

if TYPE_CHECKING:
    from nightcap.cli.reach import Retrieval
    from nightcap.cli.received import Found


@click.command()
@capture_argument()
@pods_option
@click.option("--merged", is_flag=True,
              help="One pcapng with the packets of all pods in order of time.")  # fmt: skip
@click.option("-f", "--filter", "expression", metavar="EXPRESSION",
              help="With --merged: only packets that pass this pcap-filter(7).")  # fmt: skip
@click.option("--from", "begin", metavar="TIME", help="With --merged: from then on (RFC 3339).")
@click.option("--to", "end", metavar="TIME", help="With --merged: before then (RFC 3339).")
@click.option("--from-pods", "from_pods", is_flag=True,
              help="Out of the pods themselves, by your own right to exec.")  # fmt: skip
@click.option("-d", "--directory", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for the files; default: ./NAME.")  # fmt: skip
@click.option("-o", "--output", "target", metavar="FILE",
              type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
              help="One file instead: the zip, or with --pod that file; - is stdout.")  # fmt: skip
@account_option
@cluster_options
@click.pass_context
def get(
    context: click.Context,
    name: str,
    pods: tuple[str, ...],
    merged: bool,
    expression: str | None,
    begin: str | None,
    end: str | None,
    from_pods: bool,
    directory: Path | None,
    target: Path | None,
    account: str | None,
) -> None:
    r"""Fetch what a capture has recorded so far, and check that it came whole.

    \b
    kubectl nightcap get dns
    kubectl nightcap get dns --pod checkout-7d4f -d /tmp/checkout
    kubectl nightcap get dns -o - > dns.zip
    kubectl nightcap get dns --merged
    kubectl nightcap get dns --from-pods
    """
    from nightcap.cli.received import Damaged

    if directory is not None and target is not None:
        raise click.UsageError("give -d (a folder) or -o (one file), not both", context)
    if (expression or begin or end) and not merged:
        raise click.UsageError("--filter, --from and --to go with --merged", context)
    if merged and (from_pods or directory is not None):
        raise click.UsageError("--merged is one file: give -o FILE, or nothing", context)
    if from_pods and (target is not None or account is not None):
        raise click.UsageError("--from-pods goes with -d and --pod alone", context)
    session = session_of(context)
    folder = directory or Path(name)
    try:
        if from_pods:
            _get_from_pods(session, name, pods, folder)
        elif merged:
            asked = [("filter", expression), ("from", begin), ("to", end)]
            query = [("pod", pod) for pod in pods] + [(key, said) for key, said in asked if said]
            _get_merged(session, _retrieval(session, account), name, query, target)
        elif pods:
            _get_of_pods(session, _retrieval(session, account), name, pods, folder, target)
        else:
            _get_zip(session, _retrieval(session, account), name, folder, target)
    except Damaged as error:
        raise Fault(f"{name}: {error}; nothing of it was kept, fetch it again") from error
    except OSError as error:
        # Never the name of the part that was to become the file.
        place = target or error.filename or folder
        raise Fault(f"{place}: {error.strerror}; choose another place with -d or -o") from error


@click.command()
@capture_argument()
@output_option("wide", "name", "json", "yaml")
@account_option
@cluster_options
@click.pass_context
def files(context: click.Context, name: str, output: str | None, account: str | None) -> None:
    r"""List the files that a capture has recorded so far.

    \b
    kubectl nightcap files dns
    """
    from nightcap.cli import reach

    session = session_of(context)
    path = reach.capture_path(session.namespace, name, "files")
    answer = _retrieval(session, account).json(path)
    listed = answer["files"]
    if output in ("json", "yaml"):
        click.echo(_out.dump(_out.a_list(listed), output))
    elif output == "name":
        for file in listed:
            click.echo(file["file"])
    elif not listed:
        _out.note(_no_files(session, name))
    else:
        click.echo(_out.table(words.file_rows(listed, wide=output == "wide")))
        for gap in answer.get("missing", ()):
            _out.note(words.missing(gap))


def _retrieval(session: Session, account: str | None) -> Retrieval:
    from nightcap.cli.reach import Retrieval

    return Retrieval(session, account)


def _no_files(session: Session, name: str) -> str:
    return (
        f"{name} has no files yet; kubectl nightcap status {name} -n {session.namespace} says why"
    )


def _get_zip(
    session: Session, retrieval: Retrieval, name: str, folder: Path, target: Path | None
) -> None:
    import tempfile

    from nightcap.cli import reach, received

    path = reach.capture_path(session.namespace, name, "files.zip")
    with retrieval.open(path) as download:
        if download.status == 204:
            raise Fault(_no_files(session, name))
        if target is None:
            folder.mkdir(parents=True, exist_ok=True)
        place = folder if target is None else _folder_of(target)
        with tempfile.TemporaryFile(dir=place, prefix=".nightcap-") as file:
            with progress(f"{name}: files.zip", download.length) as tell:
                received.save(download, download.length, file, tell)
            file.seek(0)
            found = received.check_zip(file)
            file.seek(0)
            if target is None:
                received.unpack(file, folder)
            else:
                _hand_over(file, target)
    _summary(found, folder if target is None else target)


def _get_merged(
    session: Session,
    retrieval: Retrieval,
    name: str,
    query: list[tuple[str, str]],
    target: Path | None,
) -> None:
    import tempfile

    from nightcap.cli import reach, received

    to = target or Path(f"{name}.pcapng")
    path = reach.capture_path(session.namespace, name, "merged.pcapng")
    with retrieval.open(path, query) as download:
        if download.status == 204 and query:
            asked = ", ".join(f"{key} {said}" for key, said in query)
            raise Fault(
                f"{name} has no packet of {asked}; kubectl nightcap files {name} "
                f"-n {session.namespace} shows pods and times"
            )
        if download.status == 204:
            raise Fault(_no_files(session, name))
        with tempfile.TemporaryFile(dir=_folder_of(to), prefix=".nightcap-") as file:
            with progress(to.name, download.length) as tell:
                size = received.save(download, download.length, file, tell)
            file.seek(0)
            found = received.check_merged(file, to.name, size)
            file.seek(0)
            _hand_over(file, to)
    _summary([found], to)


def _get_of_pods(
    session: Session,
    retrieval: Retrieval,
    name: str,
    pods: tuple[str, ...],
    folder: Path,
    target: Path | None,
) -> None:
    import tempfile

    from nightcap.cli import reach, received

    listed = retrieval.json(reach.capture_path(session.namespace, name, "files"))["files"]
    wanted = [file for file in listed if file["pod"] in pods]
    missing = sorted(set(pods) - {file["pod"] for file in wanted})
    if missing:
        known = ", ".join(sorted({file["pod"] for file in listed})[:10]) or "no pod"
        raise Fault(f"{name} has no files of {', '.join(missing)}; it has files of {known}")
    if target is not None and len(wanted) != 1:
        raise Fault(
            f"-o takes one file, and {name} has {len(wanted)} of {', '.join(pods)}; "
            "use -d FOLDER, --merged, or leave out --pod for a zip"
        )
    if target is None:
        folder.mkdir(parents=True, exist_ok=True)
    found = []
    for file in wanted:
        file_name = received.check_name(file["file"])
        path = reach.capture_path(session.namespace, name, "files", file_name)
        place = folder if target is None else _folder_of(target)
        announced: list[int | None] = []
        with tempfile.TemporaryFile(dir=place, prefix=".nightcap-") as part:
            with progress(file_name, file.get("size")) as tell:
                pieces = retrieval.resumed(path, announced.append)
                size = received.save(pieces, None, part, tell)
            received.check_size(size, announced[0] if announced else None)
            part.seek(0)
            found.append(received.check_pcap(file_name, part, size))
            part.seek(0)
            _hand_over(part, folder / file_name if target is None else target)
    _summary(found, folder if target is None else target)


def _get_from_pods(session: Session, name: str, pods: tuple[str, ...], folder: Path) -> None:
    from nightcap.cli.from_pods import fetch

    folder.mkdir(parents=True, exist_ok=True)
    with progress(f"{name}: pods", None) as tell:
        found = fetch(session, name, pods, folder, lambda _pod, size: tell(size))
    if not found:
        raise Fault(
            f"{name}: the pods hold no files of it; what retrieval received is there: "
            f"kubectl nightcap get {name} -n {session.namespace}"
        )
    _summary(found, folder)


def _folder_of(target: Path) -> Path | None:
    """Where a part is written: beside the target, so that it fits there; None for stdout."""
    return None if str(target) == "-" else target.parent


def _hand_over(file: IO[bytes], target: Path) -> None:
    from nightcap.cli import received

    if str(target) == "-":
        received.copy(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    with received.replacing(target) as to:
        received.copy(file, to)


def _summary(found: list[Found], place: Path) -> None:
    packets, size = sum(f.packets for f in found), sum(f.size for f in found)
    where = "standard output" if str(place) == "-" else str(place)
    files = "1 file" if len(found) == 1 else f"{len(found)} files"
    said = f"{files}, {packets} packets, {words.human_size(size)}, checked: {where}"
    click.echo(said, err=str(place) == "-")
