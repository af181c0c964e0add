"""What is to be said of what programs stand on: lease, volume, network, labels, schema. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from nightcap.cli.checks import REINSTALL
from nightcap.cli.session import SYSTEM
from nightcap.cli.words import Line, Mark, human_age, parse_time
from nightcap.contract import keys
from nightcap.contract.paths import ENV_COLLECTOR_CA
from nightcap.contract.switch import INJECTION, OFF, SWITCH
from nightcap.contract.uploads import COLLECTOR_PORT
from nightcap.listing import first_of

Object = Mapping[str, Any]

LEADER_LEASE: Final = "nightcap-controller"
STORE_CLAIM: Final = "nightcap-store"
LEAST_KUBELET_MINOR: Final = 29
"""Since then kubelets run native sidecars without being asked to."""
_LATE: Final = 4
"""Times the lease's own duration; clocks of different machines differ a little."""
_NAMED: Final = 5
_VALUES: Final = (keys.INJECT_ENABLED, keys.INJECT_DISABLED)

EVERY_FIELD: Final[Mapping[str, Any]] = {
    "selector": {"matchLabels": {"nightcap.dev/doctor": "1"}},
    "podNames": ["nightcap-doctor"],
    "filters": [{"protocol": "UDP", "ports": [53]}],
    "filter": "udp",
    "startTime": "2026-01-01T00:00:00Z",
    "endTime": "2026-01-01T01:00:00Z",
    "duration": "1h",
    "suspend": True,
    "interfaces": ["eth0"],
    "snapLength": 96,
    "rotation": {"maxFileSize": "10Mi", "maxFileAge": "1h", "maxFiles": 10},
    "limits": {"maxSize": "1Gi", "maxPackets": 1, "whenFull": "Finish"},
    "ttlAfterFinished": "24h",
}
"""A spec with every field that this release knows; its fields contradict, and it is never made."""

_PROGRAMS: Final = (
    ("nightcap-webhook", ("https", 8443), "the API server cannot ask the webhook"),
    ("nightcap-retrieval", (COLLECTOR_PORT, "collector"), "sidecars cannot ship"),
)


def check_lease(lease: Object | None, now: float) -> Line:
    """Whether a controller leads: without one nothing starts, ends, or is renewed."""
    look = f"kubectl -n {SYSTEM} logs -l app.kubernetes.io/name=nightcap-controller says why"
    spec = (lease or {}).get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), parse_time(spec.get("renewTime"))
    if not holder or renewed is None:
        return Line(Mark.FAULT, "no controller leads: captures neither start nor end", look)
    age = now - renewed
    if age > _LATE * float(spec.get("leaseDurationSeconds") or 15):
        return Line(
            Mark.FAULT,
            f"the controller that leads ({holder}) has not renewed its lease for {human_age(age)}: "
            "captures neither start nor end",
            look,
        )
    return Line(Mark.OK, f"a controller leads ({holder})")


def check_nodes(nodes: Sequence[Object]) -> Line:
    """Whether every node of Linux runs what the webhook gives to pods."""
    old = []
    for node in nodes:
        info = (node.get("status") or {}).get("nodeInfo") or {}
        version = re.match(r"v1\.(\d+)", str(info.get("kubeletVersion", "")))
        is_old = version is not None and int(version[1]) < LEAST_KUBELET_MINOR
        if is_old and info.get("operatingSystem") != "windows":
            old.append(f"{node['metadata']['name']} ({info['kubeletVersion']})")
    if old:
        return Line(
            Mark.FAULT,
            f"kubelets before 1.{LEAST_KUBELET_MINOR} do not run native sidecars: an injected pod "
            f"fails, or never starts, on {first_of(old, _NAMED)}",
            f"upgrade these nodes; until then switch injection off: kubectl -n {SYSTEM} create "
            f"configmap {SWITCH} --from-literal={INJECTION}={OFF}",
        )
    return Line(Mark.OK, "every node runs native sidecars")


def check_volume(claim: Object | None) -> Line:
    """Whether retrieval has a place for what it receives."""
    name = f"volume claim {STORE_CLAIM}"
    if claim is None:
        return Line(Mark.FAULT, f"{name} does not exist: retrieval cannot start", REINSTALL)
    phase = (claim.get("status") or {}).get("phase", "unknown")
    if phase != "Bound":
        return Line(
            Mark.FAULT,
            f"{name} is {phase}: retrieval cannot start",
            f"kubectl -n {SYSTEM} describe persistentvolumeclaim {STORE_CLAIM}; it needs a default "
            "StorageClass, or a volume",
        )
    return Line(Mark.OK, f"{name} is bound")


def check_secret(name: str, secret: Object | None) -> Line:
    """Whether a program has a certificate to serve."""
    if secret is None or not secret.get("data"):
        return Line(
            Mark.FAULT,
            f"Secret {name} does not exist, or is empty: nobody can reach what serves by it",
            f"the controller makes it: kubectl -n {SYSTEM} logs deployment/nightcap-controller",
        )
    return Line(Mark.OK, f"Secret {name} holds certificates")


def check_schema(said: str | None) -> Line:
    """Whether the CRD is of this release.

    Args:
        said: What the API server says of `EVERY_FIELD` under strict validation; None if it took it.
    """
    if said is not None and "unknown field" in said:
        fields = sorted({part for part in said.split('"') if part.startswith("spec.")})
        named = ", ".join(fields) or said
        return Line(
            Mark.FAULT,
            f"the CRD packetcaptures.nightcap.dev is of another release: it does not know {named}",
            "upgrade it: kubectl apply -k of manifests/base of the release that this program is of",
        )
    return Line(Mark.OK, "the CRD knows every field that this program knows")


def check_labels(namespaces: Sequence[Object]) -> Iterator[Line]:
    """Labels that were meant to enable a namespace, and do nothing."""
    for namespace in namespaces:
        name = namespace["metadata"]["name"]
        for key, value in sorted((namespace["metadata"].get("labels") or {}).items()):
            mend = f"kubectl nightcap enable {name}; then take the other label off: kubectl label "
            if key == keys.INJECT and value not in _VALUES:
                yield Line(
                    Mark.FAULT,
                    f"namespace {name} has the label {key}={value}, which means nothing; the "
                    f"value that enables is {keys.INJECT_ENABLED}",
                    f"kubectl nightcap enable {name}",
                )
            elif key != keys.INJECT and _was_meant(key):
                yield Line(
                    Mark.FAULT,
                    f"namespace {name} has the label {key}={value}, which means nothing; the label "
                    f"that enables is {keys.INJECT}={keys.INJECT_ENABLED}",
                    f"{mend}namespace {name} {key}-",
                )


def _was_meant(key: str) -> bool:
    prefix, _, name = key.lower().rpartition("/")
    return ("nightcap" in prefix and "inject" in name) or name == "nightcap-inject"


def check_network(
    policies: Sequence[Object], labels: Mapping[str, Mapping[str, str]]
) -> list[Line]:
    """Whether NetworkPolicies of our own namespace keep callers out.

    Args:
        policies: Of our namespace.
        labels: Of the pods of each program, by its name.
    """
    lines = []
    for program, ports, consequence in _PROGRAMS:
        mine = [
            policy
            for policy in policies
            if _limits(policy, "Ingress") and _selects(policy, labels.get(program, {}))
        ]
        if mine and not any(_lets(policy, "ingress", "from", ports) for policy in mine):
            names = ", ".join(sorted(policy["metadata"]["name"] for policy in mine))
            lines.append(
                Line(
                    Mark.FAULT,
                    f"network policy {names} in {SYSTEM} lets nobody reach {program} at port "
                    f"{ports[0]}: {consequence}",
                    f"let it in: kubectl -n {SYSTEM} edit networkpolicy "
                    f"{mine[0]['metadata']['name']}",
                )
            )
    return lines


def check_egress(namespace: str, policies: Sequence[Object]) -> Line | None:
    """Whether pods of an enabled namespace may be kept from shipping; None if nothing says so."""
    limiting = [policy for policy in policies if _limits(policy, "Egress")]
    closed = [p for p in limiting if not _lets(p, "egress", "to", (COLLECTOR_PORT,), anyone=False)]
    if not closed or len(closed) < len(limiting):
        return None
    names = ", ".join(sorted(policy["metadata"]["name"] for policy in closed))
    return Line(
        Mark.NOTE,
        f"namespace {namespace}: network policy {names} lets pods send nothing to TCP port "
        f"{COLLECTOR_PORT}: their sidecars record, and cannot ship",
        f"allow TCP {COLLECTOR_PORT} to namespace {SYSTEM}; until then: kubectl nightcap get NAME "
        "--from-pods",
    )


def check_pinned(namespace: str, pods: Sequence[Object], trusted: str) -> Line | None:
    """Whether sidecars trust today's collector; None if all do.

    Args:
        namespace: Of the pods.
        pods: As they are served.
        trusted: PEM of every root that the collector has a leaf of.
    """
    strangers = sorted(
        pod["metadata"]["name"]
        for pod in pods
        # One that is being deleted is restarted already.
        if not pod["metadata"].get("deletionTimestamp")
        and (root := _pinned_root(pod))
        and root.strip() not in trusted
    )
    if not strangers:
        return None
    who = "1 pod" if len(strangers) == 1 else f"{len(strangers)} pods"
    return Line(
        Mark.FAULT,
        f"namespace {namespace}: {who} with a sidecar of an earlier installation, which trusts "
        f"another root: they record, and cannot ship ({', '.join(strangers[:_NAMED])})",
        "fetch what they hold: kubectl nightcap get NAME --from-pods; then restart them: "
        f"kubectl -n {namespace} rollout restart deployment",
    )


def _pinned_root(pod: Object) -> str:
    for container in pod["spec"].get("initContainers") or ():
        if container["name"] == keys.SIDECAR_CONTAINER:
            for variable in container.get("env") or ():
                if variable["name"] == ENV_COLLECTOR_CA:
                    return str(variable.get("value") or "")
    return ""


def _limits(policy: Object, direction: str) -> bool:
    spec = policy.get("spec") or {}
    # As the API server would fill it in.
    otherwise = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return direction in (spec.get("policyTypes") or otherwise)


def _selects(policy: Object, labels: Mapping[str, str]) -> bool:
    selector = (policy.get("spec") or {}).get("podSelector") or {}
    if selector.get("matchExpressions"):
        return False  # too clever to be judged here
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items())


def _lets(
    policy: Object, rules: str, peers: str, ports: Sequence[int | str], *, anyone: bool = True
) -> bool:
    """Whether a rule opens one of the ports, for anyone or at least for somebody."""
    return any(
        (not anyone or not rule.get(peers))
        and (
            not rule.get("ports")
            or any(port.get("port") is None or port.get("port") in ports for port in rule["ports"])
        )
        for rule in (policy.get("spec") or {}).get(rules) or ()
    )
