"""Pods of every kind that people run, all at once on the real kubelet, with one capture over them.

That a pod is `capturing` is the sidecar's own word from inside of it: it has its right to capture,
its token and its way to the collector there. tests/apiserver/test_pod_kinds.py has what this
machine's kernel cannot run (AppArmor, user namespaces).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from demo.kubectl import wait_for
from demo.stage import Stage
from nightcap.contract import paths as sidecar_paths
from tests.cluster.layout import NODES
from tests.e2e.shop import INJECTED, ORDERS, Shop

SECCOMP_PROFILE = "nightcap-test/no-packet-sockets.json"
ERRNO_OF_PROFILE = 95
NATIVE = "Always"

# What an application sees of the pod around it; ends, or stays until it is told to go.
LOOK = """
import json, os, pathlib, signal, socket, sys
def mode(path):
    try: found = os.stat(path)
    except FileNotFoundError: return None
    return [oct(found.st_mode & 0o777), found.st_uid, found.st_gid]
def errno_of_packet_socket():
    try: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    except OSError as error: return error.errno
processes = {p.parent: p.read_text().strip() for p in pathlib.Path("/proc").glob("[0-9]*/comm")}
def reach():
    for folder in (folder for folder, name in processes.items() if name == "dormant"):
        try: return bool((folder / "root/run/nightcap/token/token").read_text())
        except PermissionError: return False
print(json.dumps({
    "uid": os.getuid(), "groups": os.getgroups(), "processes": sorted(processes.values()),
    "reaches_our_token": reach(),
    "token": mode("/var/run/secrets/kubernetes.io/serviceaccount/token"), "data": mode("/data"),
    "service": os.environ.get("CATALOG_SERVICE_HOST"),
    "resolver": pathlib.Path("/etc/resolv.conf").read_text(),
    "packet_socket": errno_of_packet_socket(),
}), flush=True)
if sys.argv[1:] == ["stay"]: signal.sigwait([signal.SIGTERM])
else: sys.exit(int(sys.argv[1]))
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A pod that has started, and what its application saw."""

    pod: dict[str, Any]
    facts: dict[str, Any]

    @property
    def init_containers(self) -> list[str]:
        return [c["name"] for c in self.pod["spec"].get("initContainers", [])]

    def status(self, container: str) -> dict[str, Any]:
        both = ("initContainerStatuses", "containerStatuses")
        statuses = [s for kind in both for s in self.pod["status"].get(kind, [])]
        return next(s for s in statuses if s["name"] == container)

    @property
    def terminated(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status("app")["state"]["terminated"]
        return found


def sees(**expected: Any) -> Callable[[Seen], None]:
    """The application saw exactly this."""

    def check(seen: Seen) -> None:
        assert {name: seen.facts[name] for name in expected} == expected

    return check


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of pod.

    Attributes:
        spec: Changes of the pod's spec; `containers` and `initContainers` are added.
        check: What has to hold of it when it has started or ended.
        phase: What it becomes.
        injected: Whether it has the sidecar.
    """

    name: str
    spec: dict[str, Any] = field(default_factory=dict)
    check: Callable[[Seen], None] = lambda _: None
    phase: str = "Running"
    injected: bool = True
    labels: dict[str, str] = field(default_factory=dict)

    def pod(self, image: str) -> dict[str, Any]:
        spec = dict(self.spec)
        app = {
            **look_at_it(image, {"Running": "stay", "Succeeded": "0", "Failed": "3"}[self.phase]),
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }
        more = [{"image": image, **c} for c in spec.pop("containers", [])]
        first = [{"image": image, **c} for c in spec.pop("initContainers", [])]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "labels": {"kind": "any", **self.labels}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "restartPolicy": "Never",
                "containers": [app, *more],
                "volumes": [{"name": "data", "emptyDir": {}}],
                **({"initContainers": first} if first else {}),
                **spec,
            },
        }


def look_at_it(image: str, then: str) -> dict[str, Any]:
    """The container `app`: says what it sees, then stays or ends."""
    return {"name": "app", "image": image, "command": ["python3", "-c", LOOK, then]}


def command(name: str, *argv: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": list(argv), **more}


def started_in_order(seen: Seen) -> None:
    """Ours first, then the pod's own, each after the one before."""
    assert seen.init_containers == ["nightcap", "proxy", "setup"]
    setup = seen.status("setup")["state"]["terminated"]
    times = [seen.status(name)["state"]["running"]["startedAt"] for name in ("nightcap", "proxy")]
    times.append(setup["startedAt"])
    assert times == sorted(times)
    assert setup["exitCode"] == 0


def is_guaranteed(seen: Seen) -> None:
    assert seen.pod["status"]["qosClass"] == "Guaranteed"


def sees_the_sidecar(seen: Seen) -> None:
    assert {"pause", "dormant", "python3"} <= set(seen.facts["processes"])
    assert seen.facts["reaches_our_token"] is (seen.facts["uid"] == 0)


def failed_by_itself(seen: Seen) -> None:
    assert seen.terminated["exitCode"] == 3


def has_twenty_of_its_own(seen: Seen) -> None:
    assert len(seen.pod["status"]["containerStatuses"]) == 20
    assert all(status["ready"] for status in seen.pod["status"]["containerStatuses"])


def resolves_as_it_said(seen: Seen) -> None:
    assert "nameserver 192.0.2.53" in seen.facts["resolver"]


def is_in_its_groups(seen: Seen) -> None:
    assert {2000, 3000} <= set(seen.facts["groups"])
    assert seen.facts["data"] == ["0o777", 0, 2000]
    assert seen.facts["token"] == ["0o640", 0, 2000]


def runs_as_it_said(seen: Seen) -> None:
    assert seen.facts["uid"] == 1000
    # Ours is root beside it, and needs no word of the pod's about that.
    assert seen.pod["spec"]["securityContext"] == ONE_USER


# The kernel gives 10 ms of a second to 1m, and the runtime starts no container with less than 6Mi.
SMALLEST_THERE_IS = {"cpu": "1m", "memory": "6Mi"}
# What the webhook's settings take at least: here a worker has room to start.
SMALLEST_WE_GIVE = {"cpu": "10m", "memory": "24Mi"}
HOOKS = {"hook-without-orders": SMALLEST_THERE_IS, "hook-with-orders": SMALLEST_WE_GIVE}
AMOUNT = {"cpu": "200m", "memory": "128Mi"}
ONE_USER = {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000}
OPTED_OUT = {"nightcap.dev/inject": "disabled"}

KINDS = [
    Kind("one-user", {"securityContext": ONE_USER}, runs_as_it_said),
    # docs/security.md: what a root container changes for a pod that runs as one user.
    Kind("one-users-token", {"securityContext": ONE_USER}, sees(token=["0o644", 0, 0])),
    Kind(
        "one-users-token-without-us",
        {"securityContext": ONE_USER},
        sees(token=["0o600", 1000, 0]),
        injected=False,
        labels=OPTED_OUT,
    ),
    Kind(
        "groups",
        {"securityContext": {"fsGroup": 2000, "supplementalGroups": [3000]}},
        is_in_its_groups,
    ),
    Kind(
        "seccomp",
        {
            "securityContext": {
                "seccompProfile": {"type": "Localhost", "localhostProfile": SECCOMP_PROFILE}
            }
        },
        # In the application it is in force, and what it forbids is what our sidecar does.
        sees(packet_socket=ERRNO_OF_PROFILE),
    ),
    Kind("shared-processes", {"shareProcessNamespace": True}, sees_the_sidecar),
    Kind(
        "shared-processes-as-root",
        {"shareProcessNamespace": True, "securityContext": {"runAsUser": 0}},
        sees_the_sidecar,
    ),
    Kind("no-token", {"automountServiceAccountToken": False}, sees(token=None)),
    Kind("no-service-links", {"enableServiceLinks": False}, sees(service=None)),
    Kind(
        "own-dns",
        {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.53"]}},
        resolves_as_it_said,
    ),
    Kind("budget", {"resources": {"requests": AMOUNT, "limits": AMOUNT}}, is_guaranteed),
    Kind(
        "own-sidecars",
        {
            "initContainers": [
                command("proxy", "sleep", "600", restartPolicy=NATIVE),
                command("setup", "true"),
            ]
        },
        started_in_order,
    ),
    Kind(
        "twenty",
        {"containers": [command(f"more-{n}", "sleep", "600") for n in range(19)]},
        has_twenty_of_its_own,
    ),
    Kind("init-then-done", {"initContainers": [command("setup", "true")]}, phase="Succeeded"),
    Kind("fails", {"initContainers": [command("setup", "true")]}, failed_by_itself, phase="Failed"),
    Kind("names-taken", {"containers": [command("nightcap", "sleep", "600")]}, injected=False),
]


@pytest.fixture
def profile(stage: Stage) -> None:
    """A seccomp profile made for an application, on every node."""
    if stage.disposable is None:
        pytest.skip("a profile on the nodes needs the disposable cluster")
    no_packets = {
        "names": ["socket"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": ERRNO_OF_PROFILE,
        "args": [{"index": 0, "value": 17, "op": "SCMP_CMP_EQ"}],
    }
    text = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [no_packets]})
    for node in NODES:
        file = node.folder / "kubelet" / "seccomp" / SECCOMP_PROFILE
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def copy_with_hook(
    shop: Shop, name: str, labels: dict[str, str], limits: dict[str, str]
) -> dict[str, Any]:
    """A copy of a pod that was born into a capture, its sidecar with limits of somebody's own."""
    kind = Kind(name, labels=labels)
    plain = json.dumps(kind.pod(shop.stage.images.app))
    text = shop.run("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=plain)
    pod: dict[str, Any] = json.loads(text)
    sidecar = pod["spec"]["initContainers"][0]
    sidecar["resources"] = {"requests": limits, "limits": limits}
    wait = [sidecar_paths.DORMANT_PROGRAM, "--wait", "3s"]
    sidecar["lifecycle"] = {"postStart": {"exec": {"command": wait}}}
    meta = {key: pod["metadata"].get(key, {}) for key in ("name", "labels", "annotations")}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod["spec"]}


def job(image: str) -> dict[str, Any]:
    app = look_at_it(image, "0")
    template = {"metadata": {"labels": {"kind": "any"}}}
    template["spec"] = {"restartPolicy": "Never", "containers": [app]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once"},
        "spec": {"completions": 2, "parallelism": 2, "template": template},
    }


def pods_of(shop: Shop) -> dict[str, dict[str, Any]]:
    items = shop.kubectl.json("-n", shop.name, "get", "pods")["items"]
    return {pod["metadata"]["name"]: pod for pod in items}


def is_what_it_becomes(pod: dict[str, Any], phase: str) -> bool:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
    is_up = phase != "Running" or conditions.get("Ready") == "True"
    return is_up and pod["status"]["phase"] == phase


def wait_all(shop: Shop, phases: dict[str, str]) -> None:
    """Wait until each of these pods is what it becomes."""

    def missing() -> list[str]:
        pods = pods_of(shop)
        return [name for name, phase in phases.items() if not is_what_it_becomes(pods[name], phase)]

    try:
        wait_for("all pods", lambda: not missing(), 120, 0.5)
    except Exception as error:
        said = {name: pods_of(shop)[name]["status"] for name in missing()}
        raise AssertionError(f"{error}: {json.dumps(said, indent=1)[:4000]}") from error


def test_every_kind_of_pod_starts_captures_and_ends_as_it_would_without_us(
    shop: Shop, profile: None, subtests: pytest.Subtests
) -> None:
    image = shop.stage.images.app
    shop.run("create", "service", "clusterip", "catalog", "--tcp=8080")
    asleep = copy_with_hook(shop, "hook-without-orders", {"kind": "other"}, SMALLEST_THERE_IS)
    shop.create(*(kind.pod(image) for kind in KINDS), asleep, job(image))
    wait_all(shop, {kind.name: kind.phase for kind in KINDS} | {"hook-without-orders": "Running"})
    shop.run("wait", "job", "once", "--for=condition=Complete", "--timeout=60s")

    selector = {"matchLabels": {"kind": "any"}}
    shop.create(shop.capture("all", filter="udp port 7777", selector=selector))
    stay = [kind for kind in KINDS if kind.phase == "Running"]
    shop.wait_open("all", sum(kind.injected for kind in stay))
    # Born into the capture, with a hook that waits for a worker that has little to start with.
    shop.create(copy_with_hook(shop, "hook-with-orders", {"kind": "any"}, SMALLEST_WE_GIVE))
    wait_all(shop, {"hook-with-orders": "Running"})

    pods = pods_of(shop)
    for kind in KINDS:
        with subtests.test(kind.name):
            seen = Seen(pods[kind.name], json.loads(shop.run("logs", kind.name, "-c", "app")))
            assert ("nightcap" in seen.init_containers) is kind.injected
            assert (INJECTED in seen.pod["metadata"].get("annotations", {})) is kind.injected
            kind.check(seen)
    for name, limits in HOOKS.items():
        with subtests.test(name):
            meta, status = pods[name]["metadata"], pods[name]["status"]
            assert (ORDERS in meta["annotations"]) is (name == "hook-with-orders")
            sidecar = pods[name]["spec"]["initContainers"][0]
            assert sidecar["lifecycle"]["postStart"]["exec"]["command"][1:] == ["--wait", "3s"]
            assert sidecar["resources"]["limits"] == limits
            assert status["initContainerStatuses"][0]["restartCount"] == 0
            assert not [e for e in shop.events(name) if e["reason"] == "FailedPostStartHook"]
    with subtests.test("job"):
        names = [name for name in pods if name.startswith("once-")]
        assert len(names) == 2
        for name in names:
            assert Seen(pods[name], {}).init_containers == ["nightcap"]
