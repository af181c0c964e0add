"""Injection that holds pods back is switched off, by the real API server's own account of it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from controller.guard import InjectionGuard, Known
from controller.injection import Patience
from controller.trim import namespace_decoder, pod_decoder
from nightcap.cli.program import run
from nightcap.contract.objects import ConfigMap
from nightcap.contract.switch import SWITCH
from nightcap.kube import paths
from nightcap.kube.client import MERGE_PATCH, KubeClient
from nightcap.kube.events import EventRecorder
from nightcap.kube.reflector import Reflector
from tests.apiserver.private import Installation, PrivateApi, own_kubeconfig
from tests.apiserver.site import SYSTEM, eventually
from tests.apiserver.test_resources import a_pod

PATIENCE = Patience(most_pods=2, seconds=60)
SWITCH_PATH = paths.config_map(SYSTEM, SWITCH)


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def a_guard(
    api: PrivateApi, clock: Clock, *, leads: bool = True
) -> Iterator[tuple[InjectionGuard, EventRecorder]]:
    """The controller's guard over real watches, with the controller's own rights."""
    client = KubeClient.from_environment(str(own_kubeconfig(api, "nightcap-controller")))

    def watch(path: str, decode: Callable[[msgspec.Raw], Any], **more: Any) -> Reflector[Any]:
        return Reflector(client, path, decode, name=path, **more)

    pods = watch(paths.pods(), pod_decoder())
    namespaces = watch(paths.namespaces(), namespace_decoder())
    switch = watch(
        paths.config_maps(SYSTEM),
        msgspec.json.Decoder(ConfigMap).decode,
        field_selector=f"metadata.name={SWITCH}",
    )
    recorder = EventRecorder(client, "controller")
    known = Known(pods.items, namespaces.items, lambda: switch.get(SYSTEM, SWITCH))
    for reflector in (pods, namespaces, switch):
        reflector.start()
    try:
        assert all(reflector.wait_synced(30) for reflector in (pods, namespaces, switch))
        yield (
            InjectionGuard(client, SYSTEM, known, recorder, lambda: leads, PATIENCE, clock),
            recorder,
        )
    finally:
        for reflector in (pods, namespaces, switch):
            reflector.stop()


@pytest.fixture
def switch(api: PrivateApi, installation: Installation) -> Iterator[None]:
    """Whatever a test does, the next one finds no pod held and injection on."""
    yield
    api.kubectl(
        "delete", "pods", "--all-namespaces", "--force", "--field-selector=status.phase=Pending",
        "-l", "held=yes",
    )  # fmt: skip
    api.kubectl("-n", SYSTEM, "delete", "configmap", SWITCH, "--ignore-not-found")


def hold(api: PrivateApi, namespace: str, count: int) -> None:
    """Injected pods whose kubelet says that our image cannot be pulled."""
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    status = {
        "phase": "Pending",
        "initContainerStatuses": [
            {
                "name": "nightcap",
                "image": "x",
                "imageID": "",
                "ready": False,
                "started": False,
                "restartCount": 0,
                "state": {"waiting": waiting},
            }
        ],
    }
    for _ in range(count):
        metadata = {"generateName": "held-", "labels": {"held": "yes"}}
        pod = api.create_pod(namespace, {**a_pod(), "metadata": metadata}, dry_run=False)
        path = paths.pod_status(namespace, pod["metadata"]["name"])
        api.client.request("PATCH", path, body={"status": status}, content_type=MERGE_PATCH)


def shown(guard: InjectionGuard) -> dict[str, float]:
    """The guard's metrics, by label or name."""
    return {
        sample.labels.get("state", sample.name): sample.value
        for family in guard.collect()
        for sample in family.samples
    }


def is_injected(api: PrivateApi, namespace: str) -> bool:
    return "initContainers" in api.create_pod(namespace, a_pod())["spec"]


def test_pods_that_wait_for_our_image_switch_injection_off_until_a_person_turns_it_on(
    api: PrivateApi, namespace: Callable[..., str], switch: None
) -> None:
    name = namespace()
    clock = Clock()
    hold(api, name, PATIENCE.most_pods + 1)
    with a_guard(api, clock) as (guard, recorder):
        guard.look_once()
        clock.now += PATIENCE.seconds - 1
        guard.look_once()
        assert shown(guard)["held"] == PATIENCE.most_pods + 1
        assert shown(guard)["nightcap_injection_on"] == 1
        assert is_injected(api, name)
        clock.now += 1
        guard.look_once()
        found = json.loads(api.client.request("GET", SWITCH_PATH))
        assert found["data"]["injection"] == "off"
        assert "3 pods have waited 60 s" in found["data"]["reason"]
        assert found["data"]["since"] == "2027-01-15T08:01:00Z"
        eventually("no pod is injected", lambda: not is_injected(api, name))
        eventually("it is seen", lambda: shown(guard)["nightcap_injection_on"] == 0)
        guard.look_once()  # it is off already: nothing more is written or told
        assert recorder.flush()
    told = api.kubectl("-n", name, "get", "events", "-o", "json")
    events = [e for e in json.loads(told.stdout)["items"] if e["reason"] == "InjectionOff"]
    assert [event["involvedObject"]["kind"] for event in events] == ["Namespace"]
    assert "--rescue" in events[0]["message"]
    warned = api.kubectl(
        "-n", name, "run", "one", "--image=x", "--restart=Never", "--dry-run=server"
    )
    assert "injection is switched off" in warned.stderr
    done = api.kubectl("-n", SYSTEM, "delete", "configmap", SWITCH)
    assert done.returncode == 0
    eventually("pods are injected again", lambda: is_injected(api, name))


def test_a_replica_that_does_not_lead_only_looks(
    api: PrivateApi, namespace: Callable[..., str], switch: None
) -> None:
    clock = Clock()
    hold(api, namespace(), PATIENCE.most_pods + 1)
    with a_guard(api, clock, leads=False) as (guard, _):
        guard.look_once()
        clock.now += 3600
        guard.look_once()
        assert shown(guard)["held"] > PATIENCE.most_pods
    assert api.kubectl("-n", SYSTEM, "get", "configmap", SWITCH).returncode != 0


def test_pods_that_were_created_while_the_webhook_was_away_are_counted_and_told(
    api: PrivateApi, installation: Installation, namespace: Callable[..., str], switch: None
) -> None:
    name = namespace()
    clock = Clock()
    with a_guard(api, clock) as (guard, recorder):
        guard.look_once()
        before = shown(guard)
        api.kubectl("label", "namespace", name, "nightcap.dev/inject-")
        # Whole seconds: what is made in the second of the opt-in may have been made before it.
        eventually("not opted in", lambda: not is_injected(api, name))
        api.create_pod(name, {**a_pod(), "metadata": {"name": "early"}}, dry_run=False)
        api.kubectl("label", "namespace", name, "nightcap.dev/inject=enabled")
        eventually("opted in", lambda: is_injected(api, name))
        api.create_pod(name, {**a_pod(), "metadata": {"name": "fine"}}, dry_run=False)
        installation.configure(injecting=False)
        try:
            eventually("the webhook is away", lambda: not is_injected(api, name))
            eventually("a second later", lambda: _made_later(api, name))
        finally:
            installation.configure(injecting=True)
        clock.now += 60

        def counted() -> bool:
            clock.now += 60
            guard.look_once()
            return shown(guard)["missed"] - before["missed"] >= 1

        eventually("it is counted", counted)
        assert shown(guard)["before-opt-in"] - before["before-opt-in"] >= 1
        assert shown(guard)["injected"] - before["injected"] >= 1
        assert recorder.flush()
    told = api.kubectl("-n", name, "get", "events", "-o", "json")
    events = [e for e in json.loads(told.stdout)["items"] if e["reason"] == "PodsWithoutSidecar"]
    assert events
    assert "late" in events[-1]["message"]
    assert "early" not in events[-1]["message"]
    eventually("pods are injected again", lambda: is_injected(api, name))


def _made_later(api: PrivateApi, namespace: str) -> bool:
    """Make the pod `late`, in a later second than that of the opt-in."""
    kept = json.loads(api.client.request("GET", paths.namespace(namespace)))
    since = max(entry["time"] for entry in kept["metadata"]["managedFields"])
    made = api.create_pod(namespace, {**a_pod(), "metadata": {"name": "late"}}, dry_run=True)
    if made["metadata"]["creationTimestamp"] <= since:
        return False
    api.create_pod(namespace, {**a_pod(), "metadata": {"name": "late"}}, dry_run=False)
    return True


@pytest.fixture
def doctor(api: PrivateApi, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs `kubectl nightcap doctor` against the private server."""

    def ran(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        code = run(["--kubeconfig", str(api.kubeconfig), "doctor", *arguments])
        said = capfd.readouterr()
        return code, said.out + said.err

    return ran


def images(api: PrivateApi, namespace: str) -> set[str]:
    found = json.loads(api.client.request("GET", paths.pods(namespace)))["items"]
    return {pod["spec"]["initContainers"][0]["image"] for pod in found}


def test_rescue_gives_held_pods_another_image(
    api: PrivateApi,
    namespace: Callable[..., str],
    switch: None,
    doctor: Callable[..., tuple[int, str]],
) -> None:
    name = namespace()
    hold(api, name, 2)
    before = images(api, name)
    code, said = doctor()
    assert code == 1
    assert "2 pods wait for the container nightcap" in said
    assert images(api, name) == before
    code, said = doctor("--rescue")  # the private server has no Deployment to ask
    assert code == 1
    assert "no other image is known" in said
    code, said = doctor("--rescue", "--image=mirror.example/sidecar:2")
    assert code == 0, said
    assert said.count("has image mirror.example/sidecar:2 now") == 2
    assert images(api, name) == {"mirror.example/sidecar:2"}


def test_rescue_deletes_only_what_comes_back_and_only_while_injection_is_off(
    api: PrivateApi,
    namespace: Callable[..., str],
    switch: None,
    doctor: Callable[..., tuple[int, str]],
) -> None:
    name = namespace()
    hold(api, name, 2)
    (owned, _) = (
        pod["metadata"]["name"]
        for pod in json.loads(api.client.request("GET", paths.pods(name)))["items"]
    )
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "web",
        "uid": "1",
        "controller": True,
    }
    api.client.request(
        "PATCH",
        paths.pod(name, owned),
        body={"metadata": {"ownerReferences": [owner]}},
        content_type=MERGE_PATCH,
    )
    code, said = doctor("--rescue", "--delete")
    assert code == 1
    assert "while injection is on it would come back as it is" in said
    made = api.kubectl("-n", SYSTEM, "create", "configmap", SWITCH, "--from-literal=injection=off")
    assert made.returncode == 0
    code, said = doctor("--rescue", "--delete")
    assert code == 1
    assert f"pod {name}/{owned} is deleted" in said
    assert "no controller would make it anew" in said
    assert "injection is switched off, new pods get no sidecar: somebody switched it off" in said
    left = json.loads(api.client.request("GET", paths.pods(name)))["items"]
    assert owned not in {
        pod["metadata"]["name"] for pod in left if "deletionTimestamp" not in pod["metadata"]
    }


def test_how_to_rescue_is_not_taken_without_rescue(doctor: Callable[..., tuple[int, str]]) -> None:
    code, said = doctor("--image=x")
    assert code == 2
    assert "--rescue" in said
