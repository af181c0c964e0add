"""What the controller is told by its environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controller.injection import HELD_SECONDS, MOST_HELD_PODS, Patience

_MOST = 1_000_000
_TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path
DEFAULT_NAMESPACE = "nightcap-system"
DEFAULT_METRICS_PORT = 9090


class BadSettings(ValueError):
    """The environment is wrong; the message says all that is."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one controller.

    Attributes:
        namespace: Where Nightcap itself lives.
        metrics_port: Plain HTTP: /healthz, /readyz, /metrics.
        token_file: Our own service account's token, shown to collectors.
        hostname: The pod's name, for people who read the Lease.
        fills_webhooks: Whether the `caBundle` of the webhook configurations is the controller's;
            `NIGHTCAP_CA_BUNDLES` is `own` or, where cert-manager fills them in, `injected`.
        patience: How many pods may wait for our container, and how long, before injection is
            switched off; `NIGHTCAP_MOST_HELD_PODS` and `NIGHTCAP_HELD_SECONDS`.
    """

    namespace: str = DEFAULT_NAMESPACE
    metrics_port: int = DEFAULT_METRICS_PORT
    token_file: Path = Path(_TOKEN_FILE)
    hostname: str = "controller"
    fills_webhooks: bool = True
    patience: Patience = field(default_factory=Patience)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the environment.

        Raises:
            BadSettings: names every variable that is wrong, with its value and the rule.
        """
        faults: list[str] = []
        namespace = environ.get("NIGHTCAP_NAMESPACE", DEFAULT_NAMESPACE)
        if not namespace or len(namespace) > 63 or not namespace.replace("-", "").isalnum():
            faults.append(f"NIGHTCAP_NAMESPACE: {namespace[:80]!r} is no name of a namespace")
        port_text = environ.get("NIGHTCAP_METRICS_PORT", str(DEFAULT_METRICS_PORT))
        port = int(port_text) if port_text.isascii() and port_text.isdigit() else 0
        if not 1 <= port <= 65535:
            faults.append(f"NIGHTCAP_METRICS_PORT: {port_text[:40]!r} must be from 1 to 65535")
        token_file = environ.get("NIGHTCAP_TOKEN_FILE", _TOKEN_FILE)
        ca_bundles = environ.get("NIGHTCAP_CA_BUNDLES", "own")
        if ca_bundles not in ("own", "injected"):
            faults.append(f"NIGHTCAP_CA_BUNDLES: {ca_bundles[:40]!r} must be own or injected")
        most_held = _whole(environ, "NIGHTCAP_MOST_HELD_PODS", MOST_HELD_PODS, faults)
        held_seconds = _whole(environ, "NIGHTCAP_HELD_SECONDS", int(HELD_SECONDS), faults)
        if faults:
            raise BadSettings("; ".join(faults))
        return cls(
            namespace=namespace,
            metrics_port=port,
            token_file=Path(token_file),
            hostname=environ.get("HOSTNAME") or "controller",
            fills_webhooks=ca_bundles == "own",
            patience=Patience(most_held, float(held_seconds)),
        )


def _whole(environ: Mapping[str, str], variable: str, default: int, faults: list[str]) -> int:
    text = environ.get(variable, str(default))
    if not (text.isascii() and text.isdigit() and int(text[:10]) <= _MOST):
        faults.append(f"{variable}: {text[:40]!r} must be a whole number from 0 to {_MOST}")
        return default
    return int(text)
