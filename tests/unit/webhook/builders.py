"""Builders that show only what matters to a test of the webhook."""

import json
from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jsonpatch
import msgspec

from nightcap.contract.assignment import ResolvedCapture
from nightcap.contract.captures import PacketCapture, Spec, resolve
from nightcap.contract.ceilings import Ceiling
from nightcap.contract.objects import LimitRange, ObjectMeta, ResourceQuota
from nightcap.contract.selectors import LabelSelector
from webhook.facts import NamespaceFacts, Pod, read_pod
from webhook.injection import Template, encode_patch
from webhook.resources import Sizes

NOW = 1_764_500_000.0
NAMESPACE = "storefront"
TEMPLATE = Template(
    image="registry.local/nightcap/sidecar:1",
    release="1.2.3",
    collector_name="g1.collector.nightcap.internal",
    collector_ca="-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    spool_size="256Mi",
    spool_bytes=224 * 2**20,
    wait="3s",
)
SIZES = Sizes(
    guaranteed_cpu="50m", guaranteed_memory="64Mi", memory_limit="", ephemeral_limit="256Mi"
)
COLLECTORS = (("10.96.0.9", 20443), ("fd00::9", 20443))


def a_container(name: str = "app", **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "registry.local/app:1", **fields}


def a_pod(*, meta: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "logging-5d8f9-",
            "labels": {"app": "logging"},
            **(meta or {}),
        },
        "spec": {"containers": [a_container()], **spec},
    }


def look(pod: Any) -> Pod:
    return read_pod(json.dumps(pod).encode())


def apply(pod: dict[str, Any], patch: Any) -> dict[str, Any]:
    """The pod after a patch: webhook's operations, or their JSON."""
    text = patch if isinstance(patch, bytes) else encode_patch(patch)
    patched: dict[str, Any] = jsonpatch.apply_patch(pod, json.loads(text or b"[]"))
    return patched


def apply_answer(pod: dict[str, Any], body: bytes) -> dict[str, Any]:
    """The pod after the patch of an AdmissionReview's answer."""
    return apply(pod, b64decode(json.loads(body)["response"].get("patch", "")))


def a_capture(
    name: str = "dns",
    *,
    uid: str = "5a1e0000-0000-4000-8000-000000000001",
    namespace: str = NAMESPACE,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> PacketCapture:
    return PacketCapture(
        metadata=ObjectMeta(
            name=name,
            namespace=namespace,
            uid=uid,
            creation_timestamp=datetime.fromtimestamp(NOW - 60, UTC),
        ),
        spec=Spec(selector=LabelSelector(match_labels=labels or {"app": "logging"}), **spec),
    )


def a_quota(
    *names: str, used: dict[str, str] | None = None, scopes: tuple[str, ...] = (), **hard: str
) -> ResourceQuota:
    """A quota called `compute` on some resources: plenty of those that are only named."""
    return msgspec.convert(
        {
            "metadata": {"name": "compute"},
            "spec": {"scopes": list(scopes)},
            "status": {"hard": {**dict.fromkeys(names, "1000"), **hard}, "used": used or {}},
        },
        ResourceQuota,
    )


def a_limit_range(kind: str = "Container", **item: dict[str, str]) -> LimitRange:
    """A LimitRange called `bounds`; fields by their own names, such as defaultRequest."""
    value = {"metadata": {"name": "bounds"}, "spec": {"limits": [{"type": kind, **item}]}}
    return msgspec.convert(value, LimitRange)


def resolved(capture: PacketCapture) -> ResolvedCapture:
    return ResolvedCapture(capture, resolve(capture))


def a_review(
    kind: str = "pods", operation: str = "CREATE", *, group: str = "", **request: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": group, "version": "v1", "kind": "Pod"},
            "resource": {"group": group, "version": "v1", "resource": kind},
            "operation": operation,
            "namespace": NAMESPACE,
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "dryRun": False,
            **request,
        },
    }


@dataclass
class KnownCluster:
    """What handlers ask of the cache, as values."""

    enabled: bool | None = True
    running: tuple[ResolvedCapture, ...] = ()
    collectors: tuple[tuple[str, int], ...] = COLLECTORS
    limit_ranges: tuple[LimitRange, ...] = ()
    quotas: tuple[ResourceQuota, ...] = ()
    injecting: bool = True
    limit: Ceiling | None = None

    def ceiling(self, namespace: str) -> Ceiling | None:
        return self.limit

    def namespace(self, name: str, *, wait: bool = True) -> NamespaceFacts:
        return NamespaceFacts(name, self.enabled, self.limit_ranges, self.quotas)

    def captures(self, namespace: str) -> tuple[ResolvedCapture, ...]:
        return tuple(r for r in self.running if r.capture.metadata.namespace == namespace)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())
