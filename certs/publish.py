"""Looks at everything that holds certificates in the cluster, and does one step to it.

Secrets and ConfigMap are written with the resourceVersion that was seen, webhook
configurations with a test of each webhook's name: who wrote meanwhile wins, and the
caller looks again.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from certs.bundle import EMPTY, Bundle, bundle_of, data_of
from certs.issue import LEAF_SECONDS, ROOT_SECONDS, new_leaf, new_root
from certs.policy import Observed, Policy, ServingSecret, Step, StepKind, bundle_text
from nightcap.contract.objects import ObjectMeta, Secret
from nightcap.kube import paths
from nightcap.kube.client import JSON_PATCH, MERGE_PATCH, KubeClient
from nightcap.kube.errors import Conflict, NotFound

MUTATING: Final = "MutatingWebhookConfiguration"
VALIDATING: Final = "ValidatingWebhookConfiguration"
CONFIG_MAP: Final = "ConfigMap"
_DIFFERENT: Final = "its webhooks have different bundles"
_WEBHOOKS_NAME: Final = "nightcap"
_LABELS: Final = {
    "app.kubernetes.io/name": "nightcap",
    "app.kubernetes.io/component": "certificates",
    "app.kubernetes.io/managed-by": "nightcap-controller",
}


@dataclass(frozen=True, slots=True)
class CertificateSettings:
    """Which objects hold what, and how long certificates live.

    Attributes:
        namespace: Of Nightcap itself.
        policy: Servers, lives, settling time.
        ca_secret: The roots with their keys.
        config_map: The bundle of roots, for people and the command line.
        webhooks: Name of both webhook configurations; empty if their `caBundle` is somebody
            else's to fill in.
        webhook_service: Only webhooks that call this Service are touched.
        check_seconds: How often to look even if nothing was heard.
    """

    namespace: str
    policy: Policy
    ca_secret: str = "nightcap-ca"  # noqa: S105 - the name of a Secret
    config_map: str = "nightcap-ca"
    webhooks: str = _WEBHOOKS_NAME
    webhook_service: str = "nightcap-webhook"
    check_seconds: float = 60.0

    @classmethod
    def standard(
        cls,
        namespace: str,
        *,
        retrieval_names: frozenset[str] = frozenset(),
        cluster_domain: str = "cluster.local",
        root_seconds: float = ROOT_SECONDS,
        leaf_seconds: float = LEAF_SECONDS,
        settle_seconds: float = 120.0,
        check_seconds: float = 60.0,
        fills_webhooks: bool = True,
    ) -> "CertificateSettings":
        """The installation as our manifests make it.

        Args:
            namespace: Of Nightcap itself.
            retrieval_names: More names by which people reach retrieval.
            cluster_domain: Of the cluster's DNS.
            root_seconds: Life of a root.
            leaf_seconds: Life of a leaf.
            settle_seconds: From a new root in every bundle to its use.
            check_seconds: How often to look even if nothing was heard.
            fills_webhooks: Whether the `caBundle` of webhook configurations is ours.
        """

        def names(*services: str) -> frozenset[str]:
            local = {"localhost", "127.0.0.1", "::1"}
            return frozenset(local).union(
                *(service_names(service, namespace, cluster_domain) for service in services)
            )

        retrieval = names("nightcap-collector", "nightcap-retrieval") | retrieval_names
        policy = Policy(
            serving=(
                ServingSecret("nightcap-webhook-tls", names("nightcap-webhook")),
                ServingSecret("nightcap-retrieval-tls", retrieval, collects=True),
            ),
            root_seconds=root_seconds,
            leaf_seconds=leaf_seconds,
            settle_seconds=settle_seconds,
        )
        return cls(
            namespace,
            policy,
            webhooks=_WEBHOOKS_NAME if fills_webhooks else "",
            check_seconds=check_seconds,
        )


def service_names(service: str, namespace: str, cluster_domain: str) -> frozenset[str]:
    """Every name by which a Service can be called inside a cluster."""
    return frozenset(
        {
            service,
            f"{service}.{namespace}",
            f"{service}.{namespace}.svc",
            f"{service}.{namespace}.svc.{cluster_domain}",
        }
    )


def secret_after(step: Step, old: Bundle, observed: Observed, policy: Policy, now: float) -> Bundle:
    """What a Secret is to hold after a step; makes keys, changes nothing.

    Args:
        step: What to do.
        old: What the step's Secret holds now.
        observed: Everything, for the roots.
        policy: Lives and names.
        now: Epoch seconds.
    """
    n = step.generation
    match step.kind:
        case StepKind.NEW_ROOT:
            root = new_root(n, now, policy.root_seconds)
            return replace(old.with_pair(n, root), current=old.current or n)
        case StepKind.ISSUE_LEAF:
            if observed.ca is None:
                raise ValueError(f"no root to sign a leaf of {step.where} with")
            secret = next(secret for secret in policy.serving if secret.name == step.where)
            leaf = new_leaf(observed.ca.pairs[n], secret.names_of(n), now, policy.leaf_seconds)
            # A server never shows a leaf whose root is not in its own bundle.
            return replace(
                old.with_pair(n, leaf),
                current=old.current or n,
                ca_bundle=bundle_text(observed, now),
            )
        case StepKind.PUBLISH:
            return replace(old, ca_bundle=bundle_text(observed, now))
        case StepKind.MARK_PUBLISHED:
            return replace(old, published_at={**old.published_at, n: now})
        case StepKind.ACTIVATE:
            return replace(old, current=n)
        case StepKind.RETIRE:
            return old.without(n)
        case _:
            raise ValueError(f"{step.kind} changes no Secret")


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment, with what is needed to write it.

    Attributes:
        observed: For the policy.
        versions: resourceVersion by path; '' for an object that does not exist.
        old_data: `data` of the Secrets by path, to remove the keys that are to go.
        webhooks: Webhooks of ours by path: (index, name).
    """

    observed: Observed
    versions: Mapping[str, str]
    old_data: Mapping[str, Mapping[str, str]]
    webhooks: Mapping[str, tuple[tuple[int, str], ...]]


class _ConfigMap(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, str] | None = None


class _ServiceRef(msgspec.Struct, frozen=True):
    name: str = ""
    namespace: str = ""


class _ClientConfig(msgspec.Struct, frozen=True):
    service: _ServiceRef | None = None
    ca_bundle: str = msgspec.field(default="", name="caBundle")


class _Webhook(msgspec.Struct, frozen=True):
    name: str = ""
    client_config: _ClientConfig = msgspec.field(default=_ClientConfig(), name="clientConfig")


class _WebhookConfiguration(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    webhooks: tuple[_Webhook, ...] = ()


_SECRET = msgspec.json.Decoder(Secret)
_CONFIG_MAP = msgspec.json.Decoder(_ConfigMap)
_WEBHOOKS = msgspec.json.Decoder(_WebhookConfiguration)


@dataclass(slots=True)
class _Notes:
    """What a look gathers as it goes."""

    versions: dict[str, str] = field(default_factory=dict)
    old_data: dict[str, Mapping[str, str]] = field(default_factory=dict)
    webhooks: dict[str, tuple[tuple[int, str], ...]] = field(default_factory=dict)


class Publisher:
    """Reads and writes the certificates of one installation."""

    def __init__(self, client: KubeClient, settings: CertificateSettings) -> None:
        self._client = client
        self._settings = settings

    def look(self) -> Look:
        """Read everything, live.

        Raises:
            ApiError: If something cannot be read; what does not exist is no error.
        """
        notes = _Notes()
        settings = self._settings
        observed = Observed(
            ca=self._bundle(settings.ca_secret, notes),
            serving={s.name: self._bundle(s.name, notes) for s in settings.policy.serving},
            places=self._places(notes),
        )
        return Look(observed, notes.versions, notes.old_data, notes.webhooks)

    def do(self, step: Step, look: Look, now: float) -> None:
        """Do one step to what was looked at.

        Raises:
            Conflict: If somebody wrote meanwhile; look again.
            ApiError: If it cannot be written.
        """
        match step.kind:
            case StepKind.PUBLISH if step.where in look.observed.places:
                self._publish_place(step.where, look, bundle_text(look.observed, now))
            case StepKind.KEEP:
                return
            case _:
                name = step.where or self._settings.ca_secret
                old = look.observed.serving.get(step.where) if step.where else look.observed.ca
                new = secret_after(step, old or EMPTY, look.observed, self._settings.policy, now)
                self._write_secret(name, new, look)

    def _bundle(self, name: str, notes: _Notes) -> Bundle | None:
        path = paths.secret(self._settings.namespace, name)
        data = self._get(path)
        if data is None:
            notes.versions[path] = ""
            return None
        secret = _SECRET.decode(data)
        notes.versions[path] = secret.metadata.resource_version
        notes.old_data[path] = secret.data or {}
        return bundle_of(secret.data)

    def _places(self, notes: _Notes) -> dict[str, str]:
        places = {CONFIG_MAP: self._config_map(notes)}
        for kind, path in self._webhook_paths().items():
            data = self._get(path)
            if data is None:
                continue  # not installed (yet); nothing to fill in
            configuration = _WEBHOOKS.decode(data)
            ours = [
                (index, webhook)
                for index, webhook in enumerate(configuration.webhooks)
                if self._is_ours(webhook.client_config.service)
            ]
            if not ours:
                continue
            notes.webhooks[path] = tuple((index, webhook.name) for index, webhook in ours)
            texts = {_decoded(webhook.client_config.ca_bundle) for _, webhook in ours}
            places[kind] = texts.pop() if len(texts) == 1 else _DIFFERENT
        return places

    def _config_map(self, notes: _Notes) -> str:
        path = paths.config_map(self._settings.namespace, self._settings.config_map)
        data = self._get(path)
        if data is None:
            notes.versions[path] = ""
            return ""
        config_map = _CONFIG_MAP.decode(data)
        notes.versions[path] = config_map.metadata.resource_version
        return (config_map.data or {}).get("ca.crt", "")

    def _webhook_paths(self) -> dict[str, str]:
        name = self._settings.webhooks
        if not name:
            return {}
        return {MUTATING: paths.mutating_webhook(name), VALIDATING: paths.validating_webhook(name)}

    def _is_ours(self, service: _ServiceRef | None) -> bool:
        settings = self._settings
        return service == _ServiceRef(settings.webhook_service, settings.namespace)

    def _get(self, path: str) -> bytes | None:
        try:
            return self._client.request("GET", path, timeout=(5, 10))
        except NotFound:
            return None

    def _publish_place(self, place: str, look: Look, text: str) -> None:
        if place == CONFIG_MAP:
            settings = self._settings
            path = paths.config_map(settings.namespace, settings.config_map)
            body = {"data": {"ca.crt": text}}
            self._write(path, "ConfigMap", settings.config_map, body, look)
            return
        path = self._webhook_paths()[place]
        value = base64.b64encode(text.encode()).decode()
        patch = []
        for index, name in look.webhooks[path]:
            patch += [
                {"op": "test", "path": f"/webhooks/{index}/name", "value": name},
                {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": value},
            ]
        self._client.request("PATCH", path, body=patch, content_type=JSON_PATCH, timeout=(5, 10))

    def _write_secret(self, name: str, bundle: Bundle, look: Look) -> None:
        path = paths.secret(self._settings.namespace, name)
        data: dict[str, str | None] = dict.fromkeys(look.old_data.get(path, {}))
        data.update(data_of(bundle))
        if not look.versions[path]:
            data = {key: value for key, value in data.items() if value is not None}
        self._write(path, "Secret", name, {"data": data}, look)

    def _write(self, path: str, kind: str, name: str, body: dict[str, Any], look: Look) -> None:
        """Create the object, or change it if it still is what was seen."""
        version = look.versions[path]
        if not version:
            created = {
                "apiVersion": "v1",
                "kind": kind,
                "metadata": {
                    "name": name,
                    "namespace": self._settings.namespace,
                    "labels": _LABELS,
                },
                **body,
            }
            self._client.request("POST", path.rpartition("/")[0], body=created, timeout=(5, 10))
            return
        patch = {"metadata": {"resourceVersion": version}, **body}
        try:
            self._client.request(
                "PATCH", path, body=patch, content_type=MERGE_PATCH, timeout=(5, 10)
            )
        except NotFound as error:
            raise Conflict(409, "Conflict", f"{kind} {name} was deleted meanwhile") from error


def _decoded(ca_bundle: str) -> str:
    try:
        return base64.b64decode(ca_bundle, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return "not base64 of text"
