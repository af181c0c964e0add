"""`get --from-pods`: files out of the sidecars' spools, by the caller's own right to `pods/exec`.

For when retrieval cannot be reached, or the sidecars cannot reach it. What retrieval holds already
is no longer in the pods; what a pod held is gone with the pod.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from nightcap.cli import output as _out
from nightcap.cli import received
from nightcap.cli.received import Damaged, Found
from nightcap.cli.session import Fault, Session

if TYPE_CHECKING:
    from nightcap.kube.execution import Execution

_MAX_SEGMENT: Final = 2**32


class NotExported(Exception):
    """A pod gives nothing; says why."""


def fetch(
    session: Session,
    name: str,
    pods: tuple[str, ...],
    folder: Path,
    tell: Callable[[str, int], None],
) -> list[Found]:
    """Write a capture's files into a folder, those of one pod after the other.

    Args:
        session: Whose rights count.
        name: Of the capture.
        pods: Only these; empty for all that the capture selects.
        folder: Exists.
        tell: Called with a pod and the bytes that came of it so far.

    Raises:
        Fault: no pod gives anything; why each does not.
    """
    from nightcap.kube import paths
    from nightcap.kube.errors import ApiError

    capture = session.get(paths.packetcapture(session.namespace, name))
    chosen = list(pods) or _selected(session, capture)
    if not chosen:
        raise Fault(
            f"{name} selects no pod that runs and has a sidecar; what retrieval received is there: "
            f"kubectl nightcap get {name} -n {session.namespace}"
        )
    found: list[Found] = []
    faults: dict[str, str] = {}
    for pod in chosen:
        try:
            found += _fetch_of(session, pod, capture["metadata"]["uid"], folder, tell)
        except (ApiError, NotExported, Damaged) as error:
            faults[pod] = error.message if isinstance(error, ApiError) else str(error)
    for pod, why in faults.items():
        _out.note(f"nothing of pod {pod}: {why}")
    if faults and not found:
        raise Fault(
            f"{name}: no pod gave a file. You need get and create on pods/exec in namespace "
            f"{session.namespace}, and the pods have to run"
        )
    return found


def _selected(session: Session, capture: dict[str, Any]) -> list[str]:
    """Living pods with a sidecar that the capture means."""
    from msgspec import convert

    from nightcap.contract.assignment import selects
    from nightcap.contract.captures import parse_capture
    from nightcap.contract.coverage import has_sidecar
    from nightcap.contract.objects import Pod
    from nightcap.kube import paths

    wanted = parse_capture(json.dumps(capture).encode())
    found = (convert(pod, Pod) for pod in session.items(paths.pods(session.namespace)))
    return sorted(
        pod.metadata.name
        for pod in found
        if has_sidecar(pod) and not pod.is_over and selects(wanted, pod.metadata)
    )


def _fetch_of(
    session: Session, pod: str, uid: str, folder: Path, tell: Callable[[str, int], None]
) -> list[Found]:
    from nightcap.contract import keys
    from nightcap.contract.paths import ERRAND_PROGRAM
    from nightcap.kube.execution import execute

    command = [ERRAND_PROGRAM, "export", uid]
    with (
        execute(
            session.official, session.namespace, pod, keys.SIDECAR_CONTAINER, command
        ) as running,
        tempfile.TemporaryFile(dir=folder, prefix=".nightcap-") as archive,
    ):
        size = 0
        for piece in _output(running):
            archive.write(piece)
            size += len(piece)
            tell(pod, size)
        archive.seek(0)
        return unpack(pod, archive, folder)


def _output(running: Execution) -> Iterator[bytes]:
    """What the command writes; it has to end well.

    Raises:
        NotExported: it did not.
    """
    from nightcap.kube.execution import Channel

    said = b""
    for channel, data in running:
        if channel is Channel.OUT:
            yield data
        else:
            said += data
    if running.exit_code is None:
        raise NotExported("the connection ended before the files")
    if running.exit_code:
        words = said.decode("utf-8", "replace").strip() or running.message
        raise NotExported(f"exit code {running.exit_code}: {words}")


def unpack(pod: str, archive: IO[bytes], folder: Path) -> list[Found]:
    """Write the segments of one pod as retrieval would name them; each is checked first.

    Raises:
        NotExported: the sidecar is of a release that cannot export.
        Damaged: it is no whole archive, or holds what is no segment.
    """
    from nightcap.contract.streaming import EXPORT_INDEX

    found: list[Found] = []
    is_known = False
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isreg() else None
                if file is None or member.size > _MAX_SEGMENT:
                    raise Damaged(f"{member.name[:80]!r} is no segment")
                if member.name == EXPORT_INDEX:
                    is_known = "segments" in json.loads(file.read(4096))
                elif not is_known:
                    raise Damaged("the archive does not begin with what is in it")
                else:
                    taken = {each.name for each in found}
                    found.append(_keep(pod, member.name, member.size, file, folder, taken))
    except tarfile.ReadError as error:
        if archive.seek(0, io.SEEK_END) == 0:
            raise NotExported(
                "its sidecar is of a release that cannot export; a restart of the pod brings a "
                "newer one"
            ) from error
        raise Damaged(f"no whole archive: {error}") from error
    except (ValueError, LookupError, TypeError, EOFError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(f"no whole archive: {error}") from error
    return found


def _keep(pod: str, name: str, size: int, file: IO[bytes], folder: Path, taken: set[str]) -> Found:
    from nightcap.contract.segments import BadName, FileName, parse_segment_path
    from nightcap.pcap.formats import FIRST_TIME_BYTES, NotPcap, first_time_ns

    try:
        # The rules for paths of the store hold here, too.
        key = parse_segment_path(f"any/0/0/{name}")
        first_us = first_time_ns(file.read(FIRST_TIME_BYTES)) // 1000
    except (BadName, NotPcap) as error:
        raise Damaged(f"{name[:80]!r}: {error}") from error
    # Of two that would share a name the later is a microsecond later, as in retrieval.
    while (called := str(FileName(pod, key.interface, first_us))) in taken:
        first_us += 1
    file.seek(0)
    checked = received.check_pcap(called, file, size)  # type: ignore[arg-type]
    file.seek(0)
    with received.replacing(folder / received.check_name(called)) as to:
        received.copy(file, to)
    return checked
