"""`python -m webhook` as it runs in its image: a process, TLS, watches, signals."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from http.client import HTTPSConnection
from pathlib import Path
from urllib.request import urlopen

import pytest

from certs.bundle import Bundle, data_of
from certs.issue import new_leaf, new_root
from nightcap.contract import keys, paths
from nightcap.kube import paths as api_paths
from tests.unit.kube.small_api import SmallApi
from tests.unit.webhook.builders import NAMESPACE, a_pod, a_review, apply_answer

REPOSITORY = Path(__file__).parents[3]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def root():
    return new_root(1, time.time())


@pytest.fixture(scope="module")
def api(root):
    server = SmallApi()
    leaf = new_leaf(root, ["localhost", paths.collector_name(1)], time.time())
    bundle = Bundle(pairs={1: leaf}, current=1, ca_bundle=root.certificate)
    secret = api_paths.secret("nightcap-system", "nightcap-webhook-tls")
    server.put(secret, metadata={"namespace": "nightcap-system"}, data=data_of(bundle))
    labels = {keys.INJECT: keys.INJECT_ENABLED}
    server.put(api_paths.namespace(NAMESPACE), metadata={"namespace": "", "labels": labels})
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    server.put(
        f"{api_paths.packetcaptures()}/dns",
        metadata={"namespace": NAMESPACE, "uid": "5a1e", "creationTimestamp": created},
        spec={"filter": "udp port 53"},
    )
    server.put(
        api_paths.service("nightcap-system", "nightcap-collector"),
        spec={"clusterIPs": ["10.96.0.9"]},
    )
    yield server
    server.close()


@pytest.fixture(scope="module")
def program(api, tmp_path_factory):
    """The process, its ports and its log."""
    folder = tmp_path_factory.mktemp("webhook")
    kubeconfig = folder / "kubeconfig"
    cluster = {"name": "small", "cluster": {"server": api.url}}
    context = {"name": "small", "context": {"cluster": "small", "user": "small"}}
    text = {
        "apiVersion": "v1", "kind": "Config", "current-context": "small",
        "clusters": [cluster], "contexts": [context], "users": [{"name": "small", "user": {}}],
    }  # fmt: skip
    kubeconfig.write_text(json.dumps(text))
    ports = {"listen": free_port(), "metrics": free_port()}
    environ = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "NIGHTCAP_SIDECAR_IMAGE": "registry.local/nightcap/sidecar:1",
        "NIGHTCAP_TLS_DIR": str(folder / "tls"),
        "NIGHTCAP_LISTEN_PORT": str(ports["listen"]),
        "NIGHTCAP_METRICS_PORT": str(ports["metrics"]),
    }
    (folder / "tls").mkdir()
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "webhook"], cwd=REPOSITORY, env=environ, stderr=stream
        )
    yield process, ports, log
    process.kill()
    process.wait(10)


@pytest.fixture(scope="module")
def connection(program, root):
    """A keep-alive connection to the program, made when it is ready."""
    process, ports, log = program
    context = ssl.create_default_context(cadata=root.certificate)
    deadline = time.monotonic() + 20
    while True:
        found = HTTPSConnection("localhost", ports["listen"], context=context, timeout=10)
        try:
            status, body = ask(found, "GET", "/readyz")
        except OSError:
            status, body = 0, b""
        if status == 200:
            break
        found.close()
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, (body, log.read_text())
        time.sleep(0.05)
    yield found
    found.close()


def ask(connection, method, path, review=None):
    body = None if review is None else json.dumps(review)
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_pod_is_injected_with_the_orders_of_a_running_capture(connection, root):
    status, body = ask(connection, "POST", "/mutate/baseline?timeout=3s", a_review(object=a_pod()))
    assert status == 200
    pod = apply_answer(a_pod(), body)
    sidecar = pod["spec"]["initContainers"][0]
    environ = {variable["name"]: variable["value"] for variable in sidecar["env"]}
    assert environ[paths.ENV_COLLECTOR_CA] == root.certificate
    assert environ[paths.ENV_COLLECTOR_NAME] == paths.collector_name(1)
    orders = json.loads(pod["metadata"]["annotations"][keys.ORDERS])
    assert orders["collectors"] == ["10.96.0.9:20443"]
    assert [capture["id"] for capture in orders["captures"]] == ["5a1e"]


def test_admitting_asks_the_api_server_nothing(connection, api):
    def requests():
        # Watches begin again, and the optional group is looked at, by the clock alone.
        look = api_paths.group_version(keys.CALICO_GROUP)
        return [
            path for _, path, query, _ in api.requests if path != look and not query.get("watch")
        ]

    before = requests()
    for _ in range(20):
        assert ask(connection, "POST", "/mutate/privileged", a_review(object=a_pod()))[0] == 200
    assert requests() == before


def test_a_capture_is_refused_in_libpcaps_words(connection):
    capture = {"metadata": {"name": "x", "namespace": NAMESPACE}, "spec": {"filter": "port port"}}
    review = a_review("packetcaptures", group=keys.GROUP, name="x", object=capture)
    status, body = ask(connection, "POST", "/validate", review)
    response = json.loads(body)["response"]
    assert (status, response["allowed"]) == (200, False)
    assert "syntax error" in response["status"]["message"]


def test_a_refused_request_does_not_end_the_connection(connection):
    assert ask(connection, "GET", "/mutate/baseline")[0] == 405
    socket_before = connection.sock
    assert ask(connection, "GET", "/healthz")[0] == 200
    assert connection.sock is socket_before


def test_plain_and_other_requests_share_a_connection(connection):
    """Those of kube-apiserver go the short way, the others gunicorn's; neither loses a byte."""
    review = json.dumps(a_review(object=a_pod()))
    plain = {"Content-Type": "application/json", "Host": "localhost"}
    asked = [
        ("POST", "/mutate/privileged?timeout=3s", review, plain, 200),
        ("POST", "/mutate/privileged", review, plain | {"X-Other": "x"}, 200),
        ("POST", "/mutate/privileged", "{", plain, 400),
        ("POST", "/mutate/nowhere", review, plain, 404),
        ("POST", "/mutate/privileged", review, {"Content-Type": "text/plain"}, 415),
        ("GET", "/healthz", None, {}, 200),
        ("POST", "/mutate/privileged", [review.encode()], plain, 200),  # chunked
        ("POST", "/mutate/privileged", review, plain, 200),
    ]
    ask(connection, "GET", "/healthz")
    before = connection.sock
    for method, path, body, headers, expected in asked * 3:
        chunked = isinstance(body, list)
        connection.request(method, path, body, headers, encode_chunked=chunked)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == expected, (path, headers, text)
        if expected == 200 and method == "POST":
            assert json.loads(text)["response"]["allowed"] is True
    assert connection.sock is before


def test_a_body_that_is_too_large_is_not_read_to_its_end(connection):
    kind = {"Content-Type": "application/json"}
    connection.request("POST", "/mutate/baseline", b"x" * 2**22, kind)
    answer = connection.getresponse()
    assert (answer.status, answer.read()[:9]) == (413, b"admission")
    connection.close()
    assert ask(connection, "GET", "/healthz")[0] == 200


def test_metrics_are_on_a_plain_port_of_their_own(connection, program):
    ask(connection, "POST", "/mutate/privileged", a_review(object=a_pod()))
    with urlopen(f"http://127.0.0.1:{program[1]['metrics']}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert 'nightcap_admission_requests_total{decision="injected"' in text
    (expiry,) = (line for line in text.splitlines() if line.startswith("nightcap_certificate"))
    assert float(expiry.split()[1]) > time.time()
    assert ask(connection, "GET", "/metrics")[0] == 404


def decisions_in(log):
    # What is being written has no end yet.
    lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if "\n" in line]
    return [line for line in lines if line["event"] == "admission"]


def test_the_log_is_one_json_object_a_line(connection, program):
    before = len(decisions_in(program[2]))
    ask(connection, "POST", "/mutate/privileged", a_review(object=a_pod()))
    deadline = time.monotonic() + 10  # the line comes after the answer
    while len(decisions := decisions_in(program[2])) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert {"uid", "namespace", "object", "decision", "reason", "ms"} <= decisions[-1].keys()


def test_a_program_that_is_told_to_stop_says_it_is_not_ready_and_ends_well(connection, program):
    process, _, log = program
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 5
    status = 200
    while status == 200 and time.monotonic() < deadline:
        try:
            status, body = ask(connection, "GET", "/readyz")
        except OSError:
            connection.close()  # each answer ends its connection while draining
    assert (status, body) == (503, b"waiting for the next one: this one is going\n")
    connection.close()
    assert ask(connection, "POST", "/mutate/baseline", a_review(object=a_pod()))[0] == 200
    assert process.wait(20) == 0, log.read_text()


def test_settings_that_are_refused_end_the_program_with_a_sentence():
    environ = {name: value for name, value in os.environ.items() if "NIGHTCAP" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "webhook"],
        cwd=REPOSITORY, env=environ, capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert "NIGHTCAP_SIDECAR_IMAGE is not set" in json.loads(done.stderr)["why"]
