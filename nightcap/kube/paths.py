# ruff: noqa: D103 - the name of each function is the path it gives
"""Paths of the Kubernetes API, built in one place; every name in them is quoted."""

from urllib.parse import quote

from nightcap.contract import keys

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
SELF_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
VERSION = "/version"
NAMESPACES = "/api/v1/namespaces"


def _join(prefix: str, namespace: str | None, resource: str, *more: str) -> str:
    parts = [] if namespace is None else ["namespaces", namespace]
    parts += [resource, *more]
    return "/".join([prefix, *(quote(part, safe="") for part in parts)])


def _core(namespace: str | None, resource: str, *more: str) -> str:
    return _join("/api/v1", namespace, resource, *more)


def nodes() -> str:
    return _core(None, "nodes")


def namespaces() -> str:
    return NAMESPACES


def namespace(name: str) -> str:
    return _core(None, "namespaces", name)


def pods(namespace: str | None = None) -> str:
    """All pods, or those of one namespace."""
    return _core(namespace, "pods")


def pod(namespace: str, name: str) -> str:
    return _core(namespace, "pods", name)


def pod_status(namespace: str, name: str) -> str:
    return _core(namespace, "pods", name, "status")


def pod_exec(namespace: str, name: str) -> str:
    return _core(namespace, "pods", name, "exec")


def pod_ephemeral_containers(namespace: str, name: str) -> str:
    return _core(namespace, "pods", name, "ephemeralcontainers")


def services(namespace: str | None = None) -> str:
    return _core(namespace, "services")


def service(namespace: str, name: str) -> str:
    return _core(namespace, "services", name)


def limit_ranges(namespace: str | None = None) -> str:
    return _core(namespace, "limitranges")


def resource_quotas(namespace: str | None = None) -> str:
    return _core(namespace, "resourcequotas")


def secrets(namespace: str | None = None) -> str:
    return _core(namespace, "secrets")


def secret(namespace: str, name: str) -> str:
    return _core(namespace, "secrets", name)


def config_maps(namespace: str | None = None) -> str:
    return _core(namespace, "configmaps")


def config_map(namespace: str, name: str) -> str:
    return _core(namespace, "configmaps", name)


def volume_claim(namespace: str, name: str) -> str:
    return _core(namespace, "persistentvolumeclaims", name)


def endpoint_slices(namespace: str | None = None) -> str:
    return _join("/apis/discovery.k8s.io/v1", namespace, "endpointslices")


def replica_sets(namespace: str | None = None) -> str:
    return _join("/apis/apps/v1", namespace, "replicasets")


def events(namespace: str) -> str:
    return _join("/apis/events.k8s.io/v1", namespace, "events")


def network_policies(namespace: str | None = None) -> str:
    return _join("/apis/networking.k8s.io/v1", namespace, "networkpolicies")


def leases(namespace: str) -> str:
    return _join("/apis/coordination.k8s.io/v1", namespace, "leases")


def lease(namespace: str, name: str) -> str:
    return _join("/apis/coordination.k8s.io/v1", namespace, "leases", name)


def packetcaptures(namespace: str | None = None, group: str = keys.GROUP) -> str:
    """All captures of a group, or those of one namespace."""
    return _join(f"/apis/{keys.API_VERSIONS[group]}", namespace, keys.PLURAL)


def packetcapture(namespace: str, name: str, group: str = keys.GROUP) -> str:
    return _join(f"/apis/{keys.API_VERSIONS[group]}", namespace, keys.PLURAL, name)


def packetcapture_status(namespace: str, name: str, group: str = keys.GROUP) -> str:
    return f"{packetcapture(namespace, name, group)}/status"


def capture_ceilings(namespace: str) -> str:
    """The ceilings that lie in a namespace; those of Nightcap's own count."""
    return _join(f"/apis/{keys.API_VERSIONS[keys.GROUP]}", namespace, "captureceilings")


def group_version(group: str) -> str:
    """What the API server serves of a group of captures."""
    return f"/apis/{keys.API_VERSIONS[group]}"


def api_service(group: str) -> str:
    """Who serves a group of captures."""
    version = keys.API_VERSIONS[group].partition("/")[2]
    return f"/apis/apiregistration.k8s.io/v1/apiservices/{version}.{group}"


def mutating_webhooks() -> str:
    return "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


def mutating_webhook(name: str) -> str:
    return f"{mutating_webhooks()}/{quote(name, safe='')}"


def validating_webhooks() -> str:
    return "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


def validating_webhook(name: str) -> str:
    return f"{validating_webhooks()}/{quote(name, safe='')}"


def service_accounts(namespace: str) -> str:
    return _core(namespace, "serviceaccounts")


def service_account_token(namespace: str, name: str) -> str:
    """Where a TokenRequest is sent to."""
    return _core(namespace, "serviceaccounts", name, "token")


def service_proxy(namespace: str, service: str, path: str) -> str:
    """A request that the API server passes on.

    Args:
        namespace: Of the Service.
        service: As the proxy names it, such as `https:NAME:PORT`; it is also the name
            that RBAC's `resourceNames` means.
        path: At the service, quoted, from its first slash.
    """
    # The colons stay: the name in the path is compared as it stands.
    return f"{_core(namespace, 'services')}/{quote(service, safe=':')}/proxy{path}"


def workload(group: str, namespace: str, resource: str, name: str) -> str:
    """An object that makes pods, such as a Deployment of the group `apps`."""
    return _join(f"/apis/{group}/v1", namespace, resource, name)


def workload_list(group: str, namespace: str, resource: str) -> str:
    return _join(f"/apis/{group}/v1", namespace, resource)


def deployment(namespace: str, name: str) -> str:
    return workload("apps", namespace, "deployments", name)


def validating_policy(name: str) -> str:
    prefix = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    return f"{prefix}/{quote(name, safe='')}"


def validating_policy_binding(name: str) -> str:
    prefix = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
    return f"{prefix}/{quote(name, safe='')}"


def cluster_role_binding(name: str) -> str:
    return f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{quote(name, safe='')}"
