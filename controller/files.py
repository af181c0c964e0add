"""`status.files`: one entry a node, as in projectcalico.org/v3, bounded in bytes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from controller.phase import Phase
from controller.tally import Tally
from controller.view import Judged, PodReport
from nightcap.contract.reports import State
from nightcap.contract.segments import BadName, parse_file_name

_MAX_NODES: Final = 200
_MAX_FILES_BYTES: Final = 34_000
"""Of `status.files` as JSON; the rest of a status takes at most 14 kB."""
_ENTRY_BYTES: Final = 80


def nodes_of(
    judged: Judged, tally: Tally, reports: Sequence[PodReport], carried: bool, now: float
) -> dict[str, Phase]:
    """What every node with matching pods is at, by its name."""
    is_live = carried or judged.is_running(now)
    states: dict[str, set[State]] = {}
    for item in reports:
        if item.node:
            states.setdefault(item.node, set()).add(item.report.state)
    nodes = {node: _state_of_node(found, is_live) for node, found in states.items()}
    settings = judged.settings
    for pod in tally.covered:
        node = pod.spec.node_name
        if not node or node in nodes or settings is None:
            continue
        if settings.suspended or settings.has_ended(now):
            nodes[node] = Phase.FINISHED
        else:
            nodes[node] = Phase.WAITING if settings.has_started(now) else Phase.SCHEDULED
    return nodes


def files_of(
    directory: str, nodes: Mapping[str, Phase], reports: Iterable[PodReport]
) -> list[dict[str, Any]]:
    """One entry a node, with the newest files of its pods: as many as a status has room for."""
    of_node: dict[str, list[str]] = {}
    for item in reports:
        if item.node:
            of_node.setdefault(item.node, []).extend(item.file_names)
    shown, room = [], _MAX_FILES_BYTES
    for node in sorted(nodes)[:_MAX_NODES]:
        room -= len(node) + len(directory) + _ENTRY_BYTES
        if room < 0:
            break
        shown.append(node)
    share = max(room, 0) // max(len(shown), 1)
    return [
        {
            "node": node,
            "directory": directory,
            "fileNames": _newest(of_node.get(node, ()), share),
            "state": str(nodes[node]),
        }
        for node in shown
    ]


def _newest(names: Collection[str], room: int) -> list[str]:
    """The newest of file names that fit into `room` bytes, sorted as Calico sorts them."""
    taken = []
    for name in sorted(set(names), key=_first_packet, reverse=True):
        room -= len(name) + 4
        if room < 0:
            break
        taken.append(name)
    return sorted(taken)


def _first_packet(name: str) -> tuple[int, str]:
    try:
        return parse_file_name(name).first_us, name
    except BadName:
        return 0, name  # of a later release; the oldest, so that what is known comes first


def _state_of_node(states: set[State], is_live: bool) -> Phase:
    if states == {State.FAILED}:
        return Phase.ERROR
    # The last report of a pod that was killed says for ever that it captures.
    if is_live and State.CAPTURING in states:
        return Phase.CAPTURING
    return Phase.WAITING if is_live and State.WAITING in states else Phase.FINISHED
