"""Against a small HTTP server that records requests and answers as it is told."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes.client import Configuration

from controller.actions import (
    CreateCapture,
    DeleteCapture,
    PatchOrders,
    RecordEvent,
    Ref,
    UpdateCapture,
    UpdateStatus,
    namespace_of,
)
from controller.apply import REFUSAL_SECONDS, REPEAT_SECONDS, WORKERS, Applier
from controller.metrics import Metrics
from controller.view import Memory
from nightcap.contract import keys
from nightcap.kube.client import KubeClient
from nightcap.kube.events import EventRecorder

NOW = 1_800_000_000.0
POD = Ref("Pod", "shop", "web-1", "pod-uid", resource_version="7")
CAPTURE = Ref(keys.KIND, "shop", "dns", "capture-uid", "nightcap.dev/v1alpha1", "9")
CREATE = CreateCapture("shop", "pod-web-1", "pod", {"filter": "x"}, "print", (POD,))


class Server(ThreadingHTTPServer):
    """Answers 200, or what `answers` holds for the next requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str, object]] = []
        self.answers: list[tuple[int, dict[str, object]]] = []
        self.gate = threading.Event()
        self.gate.set()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.headers.get("Content-Type", "")
        self.server.requests.append((self.command, self.path, kind, json.loads(body or b"null")))
        self.server.gate.wait(10)
        status, answer = self.server.answers.pop(0) if self.server.answers else (200, {})
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if "Retry-After" in answer:
            self.send_header("Retry-After", str(answer["Retry-After"]))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def log_message(self, format, *args) -> None:  # noqa: A002
        pass


class World:
    """An applier with its server, a clock that is set by hand, and what it said."""

    def __init__(self, server: Server) -> None:
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{server.server_port}"
        client = KubeClient(configuration)
        self.server = server
        self.now = NOW
        self.leads = True
        self.memory = Memory()
        self.metrics = Metrics()
        self.again: list[tuple[str, float]] = []
        self.recorder = EventRecorder(client, "controller")
        self.applier = Applier(
            client,
            self.recorder,
            self.recorder,
            self.memory,
            self.metrics,
            lambda action, seconds: self.again.append((namespace_of(action), seconds)),
            clock=lambda: self.now,
            may_write=lambda: self.leads,
        )

    def do(self, action):
        """Perform one action and wait for it."""
        answer = self.applier.submit(action)
        self.settle()
        return answer

    def settle(self) -> None:
        deadline = time.monotonic() + 10
        while self.applier.is_busy and time.monotonic() < deadline:
            time.sleep(0.002)

    def failed(self, action: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "nightcap_controller_actions_failed_total", {"action": action}
        )


@pytest.fixture
def world() -> Iterator[World]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    world = World(server)
    yield world
    server.gate.set()
    world.applier.stop()
    server.shutdown()
    server.server_close()
    thread.join()


def refusal(status: int, message: str, reason: str = "") -> tuple[int, dict[str, object]]:
    return status, {"kind": "Status", "code": status, "reason": reason, "message": message}


@pytest.mark.parametrize("value", ['{"v":1}', None])
def test_orders_are_patched_into_the_status_of_the_very_pod(world, value):
    world.do(PatchOrders(POD, value, frozenset({"capture-uid"})))
    assert world.server.requests == [
        (
            "PATCH",
            "/api/v1/namespaces/shop/pods/web-1/status",
            "application/merge-patch+json",
            {"metadata": {"annotations": {keys.ORDERS: value}, "uid": "pod-uid"}},
        )
    ]
    assert world.memory.ordered_at == {("capture-uid", "pod-uid"): NOW}
    assert world.again == []


def test_a_status_is_replaced_and_fields_that_are_gone_are_removed(world):
    world.do(UpdateStatus(CAPTURE, {"phase": "Capturing"}, {"phase": "x", "stale": 1}))
    method, path, _, body = world.server.requests[0]
    assert (method, path) == (
        "PATCH",
        "/apis/nightcap.dev/v1alpha1/namespaces/shop/packetcaptures/dns/status",
    )
    assert body == {
        "metadata": {"uid": "capture-uid"},
        "status": {"phase": "Capturing", "stale": None},
    }
    assert world.memory.status_written_at == {"capture-uid": NOW}


def test_what_kernels_dropped_is_counted_once_and_by_no_name(world):
    """Whoever reaches the metrics would learn from a name where there are captures."""

    def counted() -> float | None:
        return world.metrics.registry.get_sample_value("nightcap_controller_dropped_packets_total")

    first, second = {"dropped": 5}, {"dropped": 7}
    world.server.answers = [(500, {})]
    world.do(UpdateStatus(CAPTURE, first))
    assert counted() == 0
    world.do(UpdateStatus(CAPTURE, first))
    world.do(UpdateStatus(CAPTURE, second, first))
    assert counted() == 7
    world.do(UpdateStatus(CAPTURE, {}, {"dropped": "seven"}))
    assert counted() == 7


def test_people_are_told_of_a_write_that_was_done_and_of_no_other(world):
    condition = {"type": "Recording", "status": "True", "reason": "Capturing", "message": "m"}
    started = UpdateStatus(CAPTURE, {"conditions": [condition]})
    world.server.answers = [(500, {})]
    world.do(started)
    assert world.recorder.flush()
    assert len(world.server.requests) == 1
    world.do(started)
    assert world.recorder.flush()
    _, path, _, event = world.server.requests[-1]
    assert path == "/apis/events.k8s.io/v1/namespaces/shop/events"
    assert (event["type"], event["reason"], event["note"]) == ("Normal", "Started", "m")
    assert event["regarding"]["uid"] == "capture-uid"


def test_an_annotation_capture_is_created_with_its_source(world):
    world.do(CREATE)
    method, path, _, body = world.server.requests[0]
    assert (method, path) == ("POST", "/apis/nightcap.dev/v1alpha1/namespaces/shop/packetcaptures")
    assert body == {
        "apiVersion": "nightcap.dev/v1alpha1",
        "kind": "PacketCapture",
        "metadata": {"name": "pod-web-1", "labels": {keys.SOURCE: "pod"}},
        "spec": {"filter": "x"},
    }


def test_an_expired_capture_is_deleted_only_as_it_was_seen(world):
    world.do(DeleteCapture(CAPTURE))
    method, path, _, body = world.server.requests[0]
    assert (method, path) == (
        "DELETE",
        "/apis/nightcap.dev/v1alpha1/namespaces/shop/packetcaptures/dns",
    )
    assert body["preconditions"] == {"uid": "capture-uid", "resourceVersion": "9"}


@pytest.mark.parametrize("status", [400, 403, 422])
@pytest.mark.parametrize(
    "action", [CREATE, UpdateCapture(CAPTURE, {"filter": "x"}, "print", (POD,))]
)
def test_a_refusal_of_an_annotations_capture_is_remembered_with_the_servers_words(
    world, action, status
):
    world.server.answers.append(refusal(status, "denied the request: illegal port"))
    world.do(action)
    name = "pod-web-1" if action is CREATE else "dns"
    remembered = world.memory.refusals["shop", name]
    assert remembered.message == "denied the request: illegal port"
    assert remembered.fingerprint == "print"
    assert remembered.retry_at == NOW + REFUSAL_SECONDS
    assert world.again == [("shop", 0.0)]  # so that the event is recorded


def test_a_right_that_is_missing_is_no_refusal_of_what_was_asked(world):
    """An API server that was killed says so for a moment: its author had waited five minutes."""
    said = (
        'packetcaptures.nightcap.dev is forbidden: User "system:serviceaccount:nightcap-system:'
        'nightcap-controller" cannot create resource "packetcaptures" in API group "nightcap.dev"'
    )
    world.server.answers.append(refusal(403, said))
    world.do(CREATE)
    assert world.memory.refusals == {}
    assert world.failed("CreateCapture") == 1
    ((_, seconds),) = world.again
    assert 0 < seconds < 5


def test_a_capture_that_was_accepted_forgets_the_refusal(world):
    world.server.answers.append(refusal(422, "no"))
    world.do(CREATE)
    world.do(CREATE)
    assert world.memory.refusals == {}


def test_a_capture_that_exists_already_is_no_error(world):
    world.server.answers.append(refusal(409, "exists", "AlreadyExists"))
    world.do(CREATE)
    assert (world.again, world.memory.refusals) == ([], {})


@pytest.mark.parametrize("status", [404, 409])
def test_a_pod_that_is_gone_or_another_one_is_no_failure(world, status):
    world.server.answers.append(refusal(status, "gone"))
    world.do(PatchOrders(POD, "{}"))
    assert world.again == [("shop", 1.0)]
    assert world.failed("PatchOrders") is None


@pytest.mark.parametrize("status", [403, 500, 503])
def test_a_write_that_fails_is_counted_and_tried_again_ever_later(world, status):
    world.server.answers += [refusal(status, "no")] * 8
    for _ in range(8):
        world.do(PatchOrders(POD, "{}"))
    assert world.failed("PatchOrders") == 8
    delays = [seconds for _, seconds in world.again]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (1.0, 30.0)
    world.do(PatchOrders(POD, "{}"))
    world.server.answers.append(refusal(status, "no"))
    world.do(PatchOrders(POD, "other"))
    assert world.again[-1] == ("shop", 1.0)


def test_a_server_that_is_busy_says_when_to_come_back_and_that_is_no_failure(world):
    """Its priority and fairness answers 429 with a Retry-After; there is no limit of our own."""
    world.server.answers += [(429, {"message": "later", "Retry-After": "7"})] * 2
    world.do(PatchOrders(POD, "{}", frozenset({"capture-uid"})))
    world.do(PatchOrders(POD, "{}", frozenset({"capture-uid"})))
    assert world.failed("PatchOrders") is None
    put_off = world.metrics.registry.get_sample_value("nightcap_controller_actions_put_off_total")
    assert put_off == 2
    assert all(7 <= seconds <= 10.5 for _, seconds in world.again)
    assert world.memory.ordered_at == {}  # nothing was written: no pod is late


def test_a_server_that_is_away_is_survived(world):
    world.server.shutdown()
    world.server.server_close()
    world.do(PatchOrders(POD, "{}"))
    assert world.failed("PatchOrders") == 1
    assert len(world.again) == 1


def test_the_same_write_on_the_same_copy_is_done_once(world):
    action = PatchOrders(POD, "{}")
    assert world.do(action) is None
    assert world.do(action) == NOW + REPEAT_SECONDS
    assert len(world.server.requests) == 1
    world.now += REPEAT_SECONDS
    assert world.do(action) is None
    assert len(world.server.requests) == 2


def test_another_value_or_a_newer_copy_is_written_at_once(world):
    world.do(PatchOrders(POD, "a"))
    world.do(PatchOrders(POD, "b"))
    newer = Ref("Pod", "shop", "web-1", "pod-uid", resource_version="8")
    world.do(PatchOrders(newer, "b"))
    assert len(world.server.requests) == 3


def test_two_writes_of_one_object_are_never_under_way_at_once(world):
    world.server.gate.clear()
    world.applier.submit(PatchOrders(POD, "a"))
    world.applier.submit(PatchOrders(POD, "b"))
    time.sleep(0.05)
    world.server.gate.set()
    world.settle()
    assert len(world.server.requests) == 1
    assert world.again == [("shop", 0.0)]  # decide anew on what is there then


def test_many_pods_are_patched_side_by_side(world):
    hold_all_workers(world)
    assert len(world.server.requests) == WORKERS
    world.server.gate.set()
    world.settle()


def test_what_is_decided_anew_replaces_what_waits(world):
    hold_all_workers(world)
    pods = [Ref("Pod", "shop", f"old-{number}", f"old-uid-{number}") for number in range(20)]
    for pod in pods:
        world.applier.submit(PatchOrders(pod, "a", is_backlog=True))
    world.applier.submit(PatchOrders(pods[-1], "b"))
    world.applier.submit(PatchOrders(pods[0], "c", is_backlog=True))
    assert world.applier.waiting == 20
    world.server.gate.set()
    world.settle()
    written = [
        (path.split("/")[-2], body["metadata"]["annotations"][keys.ORDERS])
        for _, path, _, body in world.server.requests[WORKERS:]
    ]
    assert len(written) == 20
    assert sorted(written) == sorted(
        [(f"old-{n}", "a") for n in range(1, 19)] + [("old-0", "c"), ("old-19", "b")]
    )
    assert world.again == []


def hold_all_workers(world) -> None:
    """Let every worker wait for an answer."""
    world.server.gate.clear()
    for number in range(WORKERS):
        world.applier.submit(PatchOrders(Ref("Pod", "shop", f"p{number}", f"u{number}"), "a"))
    deadline = time.monotonic() + 10
    while len(world.server.requests) < WORKERS:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("subject", "namespace"),
    [(POD, "shop"), (Ref("Namespace", "", "shop", "ns-uid"), "shop")],
    ids=["pod", "namespace"],
)
def test_an_event_lies_where_its_readers_may_look_and_is_remembered(world, subject, namespace):
    world.do(RecordEvent(subject, "Warning", "BadAnnotation", "quoted", "Capture"))
    assert world.recorder.flush()
    method, path, _, body = world.server.requests[0]
    assert (method, path) == ("POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")
    assert (body["type"], body["reason"], body["note"]) == ("Warning", "BadAnnotation", "quoted")
    assert world.memory.told == {(subject.uid, "BadAnnotation", "quoted")}


def test_nothing_is_written_while_another_leads(world):
    """It may have been decided before a pause in which another took over."""
    world.leads = False
    world.do(PatchOrders(POD, '{"v":1}', frozenset({"capture-uid"})))
    assert world.server.requests == []
    assert world.again == [("shop", 1.0)]
    assert world.failed("PatchOrders") is None
    world.leads = True
    world.do(PatchOrders(POD, '{"v":1}', frozenset({"capture-uid"})))
    assert len(world.server.requests) == 1


def test_a_capture_of_calicos_group_is_written_to_at_its_own_path(world):
    theirs = Ref(keys.KIND, "shop", "dns", "capture-uid", "projectcalico.org/v3", "9")
    world.do(UpdateStatus(theirs, {"phase": "Capturing"}))
    ((method, path, _, _),) = world.server.requests
    assert (method, path) == (
        "PATCH",
        "/apis/projectcalico.org/v3/namespaces/shop/packetcaptures/dns/status",
    )
