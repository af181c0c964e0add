"""What the environment says to both programs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from nightcap.contract.quantities import parse_size
from nightcap.contract.uploads import COLLECTOR_PORT
from retrieval.store.location import location_fault

THREADS = 64
"""A request that waits for the disk or for a slow reader holds one of them."""
TLS_SECRET: Final = "nightcap-retrieval-tls"  # noqa: S105 - the name of a Secret
METRICS_PORTS = {"collector": 9090, "files": 9091}


class BadSettings(ValueError):
    """Every variable that cannot be used, in one message."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one of the two programs.

    Attributes:
        store: Where all segments are: a folder, of a volume that both programs mount, or the URL
            of an object store, `s3://bucket/prefix`.
        audit: URL of an object store for audit records beside the log; empty for none.
        serving_secret: Whose certificate the files program shows; the collector's is always the
            one whose root sidecars pin.
        port: Where this program listens with TLS.
        store_limit_bytes: For all captures together; 0 for no limit but the volume's size.
        metrics_port: Where it shows its metrics, without TLS; 0 for nowhere.
    """

    namespace: str
    store: str
    tls_dir: Path
    port: int
    metrics_port: int
    audit: str = ""
    serving_secret: str = TLS_SECRET
    store_limit_bytes: int = 0

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], program: str) -> Self:
        """Read the variables.

        Args:
            environ: Variables and their values.
            program: `collector` or `files`.

        Raises:
            BadSettings: names every variable that is wrong.
        """
        faults: list[str] = []
        port_variable, default_port = {
            "collector": ("NIGHTCAP_COLLECTOR_PORT", COLLECTOR_PORT),
            "files": ("NIGHTCAP_FILES_PORT", 8444),
        }[program]
        settings = cls(
            namespace=environ.get("NIGHTCAP_NAMESPACE", "nightcap-system"),
            store=_location(environ, "NIGHTCAP_STORE", "/var/lib/nightcap", faults),
            tls_dir=_path(environ, "NIGHTCAP_TLS_DIR", "/run/nightcap-tls", faults),
            port=_port(environ, port_variable, default_port, 1, faults),
            metrics_port=_port(environ, "NIGHTCAP_METRICS_PORT", METRICS_PORTS[program], 0, faults),
            audit=_location(environ, "NIGHTCAP_AUDIT_STORE", "", faults),
            serving_secret=_serving_secret(environ, program),
            # Only one of the two makes room.
            store_limit_bytes=(
                _bytes(environ, "NIGHTCAP_STORE_LIMIT", faults) if program == "collector" else 0
            ),
        )
        if not settings.namespace:
            faults.append("NIGHTCAP_NAMESPACE is empty; name the namespace of the installation")
        if faults:
            raise BadSettings("; ".join(faults))
        return settings


def _serving_secret(environ: Mapping[str, str], program: str) -> str:
    # Sidecars pin the root of the collector's certificate: that one nobody else makes.
    named = environ.get("NIGHTCAP_SERVING_SECRET") if program == "files" else None
    return named or TLS_SECRET


def _location(environ: Mapping[str, str], variable: str, default: str, faults: list[str]) -> str:
    location = environ.get(variable) or default
    fault = location_fault(location, is_folder_good=bool(default)) if location else None
    if fault is not None:
        faults.append(f"{variable} is {location[:200]!r}; {fault}")
    return location


def _bytes(environ: Mapping[str, str], variable: str, faults: list[str]) -> int:
    text = environ.get(variable) or "0"
    try:
        return parse_size(text)
    except ValueError as error:
        faults.append(f"{variable} is {text[:20]!r}; {error}")
        return 0


def _path(environ: Mapping[str, str], variable: str, default: str, faults: list[str]) -> Path:
    path = Path(environ.get(variable, default))
    if not path.is_absolute():
        faults.append(f"{variable} is {str(path)!r}; must be an absolute path")
    return path


def _port(
    environ: Mapping[str, str], variable: str, default: int, least: int, faults: list[str]
) -> int:
    text = environ.get(variable, str(default))
    if not (text.isascii() and text.isdigit() and least <= int(text) <= 65535):
        faults.append(f"{variable} is {text[:20]!r}; must be a port from {least} to 65535")
        return default
    return int(text)
