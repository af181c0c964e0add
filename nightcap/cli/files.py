"""`get`: what was recorded, fetched through the API server and checked."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from nightcap.cli import words
from nightcap.cli.options import CAPTURES, PODS, cluster_options, session_of
from nightcap.cli.session import Fault, Session

if TYPE_CHECKING:
    from nightcap.cli.reach import Retrieval
    from nightcap.cli.received import Found

_EVERY_SECONDS = 0.1
_BAR_CELLS = 24


@click.command(short_help="Fetch what a capture has recorded")
@click.argument("name", shell_complete=CAPTURES)
@click.option("--pod", "pods", multiple=True, metavar="NAME", shell_complete=PODS,
              help="Only this pod's files; may be repeated.")  # fmt: skip
@click.option("-d", "--directory", type=click.Path(file_okay=False, path_type=Path),
              help="Folder for the files; default: ./NAME.")  # fmt: skip
@click.option("-o", "--output", "target", metavar="FILE",
              type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
              help="One file instead: the zip, or with --pod that file; - is stdout.")  # fmt: skip
@click.option("--as-service-account", "account", metavar="NAME",
              help="Ask as this service account, by a token of ten minutes.")  # fmt: skip
@cluster_options
@click.pass_context
def get(
    context: click.Context,
    name: str,
    pods: tuple[str, ...],
    directory: Path | None,
    target: Path | None,
    account: str | None,
) -> None:
    r"""Fetch what a capture has recorded so far, and check that it came whole.

    \b
    kubectl nightcap get dns
    kubectl nightcap get dns --pod checkout-7d4f -d /tmp/checkout
    kubectl nightcap get dns -o - > dns.zip
    """
    from nightcap.cli.reach import Retrieval
    from nightcap.cli.received import Damaged

    if directory is not None and target is not None:
        raise click.UsageError("give -d (a folder) or -o (one file), not both", context)
    session = session_of(context)
    retrieval = Retrieval(session, account)
    try:
        if pods:
            _get_of_pods(session, retrieval, name, pods, directory or Path(name), target)
        else:
            _get_zip(session, retrieval, name, directory or Path(name), target)
    except Damaged as error:
        raise Fault(f"{name}: {error}; nothing of it was kept, fetch it again") from error
    except OSError as error:
        raise Fault(
            f"{error.filename or target or directory or name}: {error.strerror}; choose another "
            "place with -d or -o"
        ) from error


def _get_zip(
    session: Session, retrieval: Retrieval, name: str, folder: Path, target: Path | None
) -> None:
    import tempfile

    from nightcap.cli import reach, received

    path = reach.capture_path(session.namespace, name, "files.zip")
    with retrieval.open(path) as download:
        if download.status == 204:
            raise Fault(
                f"{name} has no files yet; kubectl nightcap status {name} "
                f"-n {session.namespace} says why"
            )
        if target is None:
            folder.mkdir(parents=True, exist_ok=True)
        place = folder if target is None else _folder_of(target)
        with tempfile.TemporaryFile(dir=place, prefix=".nightcap-") as file:
            with _progress(f"{name}: files.zip", download.length) as tell:
                received.save(download, download.length, file, tell)
            file.seek(0)
            found = received.check_zip(file)
            file.seek(0)
            if target is None:
                received.unpack(file, folder)
            else:
                _hand_over(file, target)
    _summary(found, folder if target is None else target)


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
            "use -d FOLDER, or leave out --pod for a zip"
        )
    if target is None:
        folder.mkdir(parents=True, exist_ok=True)
    found = []
    for file in wanted:
        file_name = received.check_name(file["file"])
        path = reach.capture_path(session.namespace, name, "files", file_name)
        place = folder if target is None else _folder_of(target)
        with (
            retrieval.open(path) as download,
            tempfile.TemporaryFile(dir=place, prefix=".nightcap-") as part,
        ):
            with _progress(file_name, download.length) as tell:
                size = received.save(download, download.length, part, tell)
            part.seek(0)
            found.append(received.check_pcap(file_name, part, size))
            part.seek(0)
            _hand_over(part, folder / file_name if target is None else target)
    _summary(found, folder if target is None else target)


def _folder_of(target: Path) -> Path | None:
    """Where a part is written: beside the target, so that it fits there; None for stdout."""
    return None if str(target) == "-" else target.parent


def _hand_over(file: IO[bytes], target: Path) -> None:
    import shutil

    from nightcap.cli.received import replacing

    if str(target) == "-":
        shutil.copyfileobj(file, sys.stdout.buffer, 2**20)
        sys.stdout.buffer.flush()
        return
    with replacing(target) as to:
        shutil.copyfileobj(file, to, 2**20)


def _summary(found: list[Found], place: Path) -> None:
    packets, size = sum(f.packets for f in found), sum(f.size for f in found)
    where = "standard output" if str(place) == "-" else str(place)
    files = "1 file" if len(found) == 1 else f"{len(found)} files"
    said = f"{files}, {packets} packets, {words.human_size(size)}, checked: {where}"
    click.echo(said, err=str(place) == "-")


@contextmanager
def _progress(title: str, length: int | None) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how far a download is; nothing is left of it."""
    if not sys.stderr.isatty():
        yield lambda _size: None
        return
    shown_at = 0.0

    def tell(size: int) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if now - shown_at >= _EVERY_SECONDS:
            shown_at = now
            click.echo(f"\r\x1b[K{_bar(title, size, length)}", nl=False, err=True)

    try:
        yield tell
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)


def _bar(title: str, size: int, length: int | None) -> str:
    if not length:
        return f"{title}  {words.human_size(size)}"
    done = size * _BAR_CELLS // length
    bar = "#" * done + "." * (_BAR_CELLS - done)
    return f"{title}  [{bar}] {words.human_size(size)} of {words.human_size(length)}"
