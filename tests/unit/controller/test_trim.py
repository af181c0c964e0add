import json

import msgspec

from controller.tally import PodFacts, tally_of
from controller.trim import namespace_decoder, pod_decoder
from controller.view import judge
from nightcap.contract import keys
from nightcap.contract.assignment import annotation_capture_name, selects
from nightcap.contract.coverage import has_sidecar, takes_orders, why_without_sidecar
from nightcap.contract.objects import Pod
from tests.unit.controller.builders import INJECTED, NOW, a_capture, a_view

FAT = {
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "uid": "aa",
        "resourceVersion": "7",
        "generation": 3,
        "generateName": "web-",
        "creationTimestamp": "2026-11-22T00:00:00Z",
        "labels": {"app": "web", "pod-template-hash": "abc"},
        "annotations": {
            keys.INJECTED: INJECTED,
            keys.CAPTURE: "on",
            keys.FILTER: "udp",
            "kubectl.kubernetes.io/last-applied-configuration": "x" * 9000,
        },
        "ownerReferences": [
            {"kind": "Other", "name": "o", "uid": "1"},
            {"kind": "ReplicaSet", "name": "web-abc", "uid": "2", "controller": True},
        ],
        "managedFields": [{"manager": "kubelet"}],
    },
    "spec": {
        "nodeName": "node-a",
        "initContainers": [{"name": "setup"}, {"name": keys.SIDECAR_CONTAINER, "image": "i"}],
        "containers": [{"name": "app"}],
        "os": {"name": "linux"},
    },
    "status": {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}],
        "initContainerStatuses": [
            {"name": "setup", "state": {"waiting": {"reason": "Other"}}},
            {
                "name": keys.SIDECAR_CONTAINER,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "m"}},
            },
        ],
    },
}


def trimmed_and_whole(fat):
    raw = json.dumps(fat).encode()
    return pod_decoder()(msgspec.Raw(raw)), msgspec.json.decode(raw, type=Pod)


def test_a_trimmed_pod_means_the_same_to_every_decision():
    capture = a_capture(selector={"matchLabels": {"app": "web"}})
    found = []
    for pod in trimmed_and_whole(FAT):
        tally = tally_of(judge(capture), [PodFacts(pod)], a_view([capture], [pod]), NOW)
        found.append(
            (
                selects(capture, pod.metadata),
                annotation_capture_name(pod.metadata),
                has_sidecar(pod),
                takes_orders(pod),
                why_without_sidecar(pod, None),
                pod.is_over,
                pod.metadata.resource_version,
                [item.metadata.name for item in tally.covered],
            )
        )
    assert found[0] == found[1]
    assert found[0][0]
    assert found[0][1][0].startswith("deployment-web-")


def test_a_trimmed_pod_keeps_why_its_sidecar_waits_and_drops_what_nobody_looks_at():
    pod, _ = trimmed_and_whole(FAT)
    (status,) = pod.status.init_containers
    assert status.state == {"waiting": {"reason": "ImagePullBackOff"}}
    assert set(pod.metadata.annotations or {}) == {keys.INJECTED, keys.CAPTURE, keys.FILTER}
    assert pod.status.ips == ()


def test_pods_share_what_is_equal():
    one, _ = trimmed_and_whole(FAT)
    other, _ = trimmed_and_whole({**FAT, "metadata": {**FAT["metadata"], "name": "web-2"}})
    assert one.metadata.labels is other.metadata.labels
    assert one.spec is other.spec
    assert one.metadata.annotations is other.metadata.annotations


def test_a_namespace_keeps_its_labels_and_our_annotations():
    raw = {
        "metadata": {
            "name": "shop",
            "labels": {"a": "b"},
            "annotations": {keys.CAPTURE: "on", "x": "y"},
        }
    }
    metadata = namespace_decoder()(msgspec.Raw(json.dumps(raw).encode())).metadata
    assert (metadata.labels, metadata.annotations) == ({"a": "b"}, {keys.CAPTURE: "on"})
