"""Which objects of an installation hold certificates, for which names, and for how long."""

from dataclasses import dataclass
from typing import Final

from certs.issue import LEAF_SECONDS, ROOT_SECONDS
from certs.policy import Policy, ServingSecret
from nightcap.contract.uploads import COLLECTOR_SERVICE

_WEBHOOKS_NAME: Final = "nightcap"


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

        retrieval = names(COLLECTOR_SERVICE, "nightcap-retrieval") | retrieval_names
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
