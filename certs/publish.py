"""Looks at everything that holds certificates in the cluster, and does one step to it.

Secrets and ConfigMap are written with the resourceVersion that was seen, webhook
configurations with a test of each webhook's name: who wrote meanwhile wins, and the
caller looks again.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from certs.bundle import EMPTY, Bundle, bundle_of, data_of
from certs.policy import Observed, Step, StepKind, bundle_text
from certs.settings import CertificateSettings
from certs.steps import secret_after
from nightcap.contract.objects import ObjectMeta, Secret
from nightcap.kube import paths
from nightcap.kube.client import JSON_PATCH, MERGE_PATCH, KubeClient
from nightcap.kube.errors import Conflict, NotFound

MUTATING: Final = "MutatingWebhookConfiguration"
VALIDATING: Final = "ValidatingWebhookConfiguration"
CONFIG_MAP: Final = "ConfigMap"
_DIFFERENT: Final = "its webhooks have different bundles"
_LABELS: Final = {
    "app.kubernetes.io/name": "nightcap",
    "app.kubernetes.io/component": "certificates",
    "app.kubernetes.io/managed-by": "nightcap-controller",
}


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
