"""What a capture's object says, in words for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

KIND: Final = "packetcapture.nightcap.dev"
EVERY_PACKET: Final = "every packet"
NO_ANSWER: Final = "-"


class Mark(StrEnum):
    """How a line is to be taken."""

    OK = "ok"
    NOTE = "note"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Line:
    """One statement, and what to do about it (may be empty)."""

    mark: Mark
    text: str
    advice: str = ""


_ADVICE: Final[Mapping[str, str]] = {
    "BadSpec": "mend it: kubectl -n {namespace} edit packetcapture {name}",
    "BadAnnotation": "mend the annotations nightcap.dev/*, the capture follows",
    "NoMatchingPods": (
        "compare the selection with: kubectl -n {namespace} get pods --show-labels; pods that "
        "come later are captured from their first packet"
    ),
    "PodsLeftOut": "nothing, if it is meant so; the other pods are captured",
    "PodsWithoutSidecar": "kubectl nightcap enable {namespace} says which pods to restart",
    "InjectionOff": "kubectl nightcap doctor says how to turn it on again",
    "NoCollector": "kubectl nightcap doctor",
    "CollectorUnreachable": "kubectl nightcap doctor",
    "PodsNotReporting": "allow these pods the way to nightcap-collector in nightcap-system",
    "StoreFull": "delete captures that nobody needs, or have retrieval's volume made larger",
    "PodsFailed": "kubectl -n {namespace} logs POD -c nightcap",
    "Suspended": (
        "go on with: kubectl -n {namespace} patch packetcapture {name} --type merge "
        '-p \'{{"spec":{{"suspend":false}}}}\''
    ),
    "NoPods": "kubectl nightcap enable {namespace} says which pods to restart",
    "LimitReached": "start another one, or raise spec.limits",
    "ClockSkew": "look after the clocks of these nodes (NTP)",
    "BacklogLost": "files have gaps: a larger spool, or less traffic by a filter",
}
_FOLLOWS_AN_ANNOTATION: Final = (
    "it follows an annotation: go on with nightcap.dev/capture=on where that is (pod, pod template "
    "or namespace)"
)
_ENDED: Final = frozenset({"TimeOver", "PodsFinished", "LimitReached", "Suspended"})
_NO_FAULT: Final = _ENDED | {"PodsLeftOut"}
# A capture that goes on is not complete, and one that nobody has to report on is silent:
# neither is news.
_NO_NEWS: Final = frozenset({"NotEnded", "Shipping", "NothingToReport", "Ordered"})


def selection(spec: Mapping[str, Any]) -> str:
    """Which pods, in the notation of `kubectl get -l`."""
    if spec.get("podNames"):
        return "pods " + ", ".join(spec["podNames"])
    selector = spec.get("selector") or {}
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for requirement in selector.get("matchExpressions") or ():
        key, operator = requirement.get("key", ""), requirement.get("operator", "")
        values = ",".join(requirement.get("values") or ())
        parts.append(
            {
                "In": f"{key} in ({values})",
                "NotIn": f"{key} notin ({values})",
                "Exists": key,
                "DoesNotExist": f"!{key}",
            }.get(operator, f"{key} {operator}")
        )
    return f"pods with {','.join(parts)}" if parts else "every pod of the namespace"


def packets_wanted(spec: Mapping[str, Any]) -> str:
    """Which packets."""
    if spec.get("filter"):
        return str(spec["filter"])
    rules = []
    for rule in spec.get("filters") or ():
        ports = ",".join(str(port) for port in rule.get("ports") or ())
        words = [str(rule.get("protocol") or ""), f"port {ports}" if ports else ""]
        rules.append(" ".join(word for word in words if word) or EVERY_PACKET)
    return " or ".join(rules) or EVERY_PACKET


def explain(capture: Mapping[str, Any], now: float) -> list[Line]:
    """Whether it captures, and if nothing is captured, why.

    Args:
        capture: The object as it is served.
        now: Seconds since the epoch.
    """
    from nightcap.contract import keys

    metadata, spec = capture["metadata"], capture.get("spec") or {}
    status = capture.get("status")
    names = {"namespace": metadata.get("namespace", ""), "name": metadata.get("name", "")}
    if metadata.get("deletionTimestamp"):
        return [Line(Mark.FAULT, "it is being deleted, and its files with it")]
    if not status:
        return [
            Line(
                Mark.FAULT,
                "the controller has not looked at it yet",
                "ask again in a few seconds; then: kubectl nightcap doctor",
            )
        ]
    lines = [_verdict(names["name"], spec, status, now)]
    for condition in status.get("conditions") or ():
        reason = condition.get("reason", "")
        unknown_news = condition["status"] == "Unknown" and reason in _ADVICE
        if (condition["status"] == "False" or unknown_news) and reason not in _NO_NEWS | {
            "TimeOver",
            "Scheduled",
            "PodsFinished",
        }:
            mark = Mark.NOTE if reason in _NO_FAULT else Mark.FAULT
            advice = _ADVICE.get(reason, "").format(**names)
            if reason == "Suspended" and keys.SOURCE in (metadata.get("labels") or {}):
                advice = _FOLLOWS_AN_ANNOTATION
            lines.append(Line(mark, str(condition.get("message", "")), advice))
    return lines


def _verdict(name: str, spec: Mapping[str, Any], status: Mapping[str, Any], now: float) -> Line:
    phase = status.get("phase")
    pods = status.get("pods") or {}
    packets, size = int(status.get("packets") or 0), int(status.get("size") or 0)
    got = f"{packets} packets, {human_size(size)}"
    end = parse_time(status.get("endTime"))
    left = f", {human_age(end - now)} left" if end is not None and end > now else ""
    match phase:
        case "Capturing":
            return Line(Mark.OK, f"it captures in {_count(pods.get('capturing'))}: {got}{left}")
        case "WaitingForTraffic" if pods.get("capturing"):
            return Line(
                Mark.NOTE if not packets else Mark.OK,
                f"it is open in {_count(pods['capturing'])}, but no packet has matched yet "
                f"({packets_wanted(spec)}){left}",
                "send the traffic that you look for, or widen the filter",
            )
        case "WaitingForTraffic":
            return Line(Mark.FAULT, f"no pod captures yet{left}")
        case "Scheduled":
            begin = parse_time(status.get("startTime"))
            wait = f" in {human_age(begin - now)}" if begin is not None and begin > now else ""
            return Line(Mark.NOTE, f"it begins{wait}, at {status.get('startTime')}")
        case "Finished":
            if not packets:
                return Line(
                    Mark.FAULT,
                    "it is over, and no packet has arrived",
                    f"none matched, or the pods could not ship: kubectl nightcap get {name} "
                    "--from-pods fetches what they hold; kubectl nightcap doctor looks for why",
                )
            return Line(Mark.OK, f"it is over: {got}")
        case _:
            return Line(Mark.FAULT, f"it cannot run: phase {phase}")


def _count(number: Any) -> str:
    return "1 pod" if number == 1 else f"{number or 0} pods"


LIST_HEAD: Final = (
    "NAME", "PHASE", "CAPTURING", "MATCHING", "PACKETS", "DROPPED", "SIZE", "AGE",
)  # fmt: skip
WIDE_HEAD: Final = ("PODS", "FILTER", "UNTIL")


def list_row(capture: Mapping[str, Any], now: float, *, wide: bool) -> tuple[str, ...]:
    """One line of `list`; the columns are `LIST_HEAD`, then `WIDE_HEAD`."""
    metadata, spec = capture["metadata"], capture.get("spec") or {}
    status = capture.get("status") or {}
    pods = status.get("pods") or {}
    created = parse_time(metadata.get("creationTimestamp"))
    row = (
        str(metadata["name"]),
        str(status.get("phase") or NO_ANSWER),
        str(pods.get("capturing", NO_ANSWER)),
        str(pods.get("matching", NO_ANSWER)),
        str(status.get("packets", NO_ANSWER)),
        str(status.get("dropped", NO_ANSWER)),
        human_size(int(status["size"])) if "size" in status else NO_ANSWER,
        human_age(now - created) if created is not None else NO_ANSWER,
    )
    if not wide:
        return row
    return (*row, selection(spec), packets_wanted(spec), str(status.get("endTime", NO_ANSWER)))


def file_rows(files: Sequence[Mapping[str, Any]], *, wide: bool) -> list[tuple[str, ...]]:
    """A table of a capture's files, its head first; `dropped` is the whole pod's."""
    head = ("FILE", "SIZE", "PACKETS", "FIRST", "LAST", "STATE")
    rows = [head + (("POD", "INTERFACE", "NODE", "DROPPED") if wide else ())]
    for file in files:
        row = [
            str(file["file"]),
            human_size(int(file["size"])),
            *(str(NO_ANSWER if file.get(key) is None else file[key]) for key in
              ("packets", "first", "last", "state")),
        ]  # fmt: skip
        if wide:
            row += [str(NO_ANSWER if file.get(key) is None else file[key])
                    for key in ("pod", "interface", "node", "dropped")]  # fmt: skip
        rows.append(tuple(row))
    return rows


def missing(gap: Mapping[str, Any]) -> str:
    """What is in none of a capture's files, and of which pod."""
    from nightcap.contract.reports import Gap

    fields = (gap.get(field, 0) for field in Gap._fields[1:])
    return f"{gap['pod']}: {Gap(str(gap['interface']), *map(int, fields)).sentence}"


def status_rows(capture: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of a capture, a name and a value each."""
    spec, status = capture.get("spec") or {}, capture.get("status") or {}
    pods = status.get("pods") or {}
    counts = [
        f"{pods.get('matching', 0)} match",
        f"{pods.get('capturing', 0)} capture",
        *(
            f"{pods[key]} {words}"
            for key, words in (
                ("withoutSidecar", "without sidecar"),
                ("notReporting", "not reporting"),
                ("failed", "failed"),
            )
            if pods.get(key)
        ),
    ]
    return [
        ("Capture", f"{capture['metadata']['name']} in {capture['metadata'].get('namespace')}"),
        ("Phase", str(status.get("phase") or "not known yet")),
        ("Selects", selection(spec)),
        ("Packets", packets_wanted(spec)),
        ("From", str(status.get("startTime") or spec.get("startTime") or "now")),
        ("Until", str(status.get("endTime") or f"after {spec.get('duration') or '1h'}")),
        ("Pods", ", ".join(counts)),
        (
            "Recorded",
            f"{status.get('packets', 0)} packets, {human_size(int(status.get('size') or 0))}, "
            f"{status.get('dropped', 0)} dropped by the kernel",
        ),
    ]


def human_size(count: int) -> str:
    """Bytes with a unit, two or three digits."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def human_age(seconds: float) -> str:
    """A span as kubectl writes ages: `45s`, `12m`, `3h20m`, `2d4h`."""
    whole = max(int(seconds), 0)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if whole < 120:
        return f"{whole}s"
    if whole < 3600:
        return f"{minutes}m"
    if not days:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    return f"{days}d{hours}h" if hours else f"{days}d"


def parse_time(text: Any) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; None for anything else."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def restarts(pods: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """How to replace pods: command (after `kubectl -n NAMESPACE`) -> the pods it replaces."""
    by_command: dict[str, list[str]] = {}
    for pod in pods:
        by_command.setdefault(_restart(pod["metadata"]), []).append(str(pod["metadata"]["name"]))
    return by_command


def _restart(metadata: Mapping[str, Any]) -> str:
    name = metadata["name"]
    owners = metadata.get("ownerReferences") or ()
    owner = next((o for o in owners if o.get("controller")), None)
    if owner is None:
        return f"delete pod {name} (and create it again: nothing else will)"
    kind, owner_name = str(owner.get("kind")), str(owner.get("name"))
    template = (metadata.get("labels") or {}).get("pod-template-hash")
    if kind == "ReplicaSet" and template and owner_name.endswith(f"-{template}"):
        return f"rollout restart deployment/{owner_name.removesuffix(f'-{template}')}"
    if kind in ("StatefulSet", "DaemonSet"):
        return f"rollout restart {kind.lower()}/{owner_name}"
    return f"delete pod {name}"
