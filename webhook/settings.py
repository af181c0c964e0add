"""What the installation sets, read once from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nightcap
from nightcap.contract.quantities import BadQuantity, parse_duration, parse_size
from webhook.resources import KEPT_FREE_BYTES, LEAST_SPOOL_BYTES, Sizes, parse_quantity

_LONGEST_WAIT_SECONDS: Final = 60
_LEAST_CPU: Final = "10m"
_LEAST_MEMORY: Final = "24Mi"
"""Below, a pod that is born into a capture may not start: where the kernel kills all of a container
at once, the worker's end is the sidecar's, and the pod waits for it."""


class BadSettings(ValueError):
    """Environment variables that are refused, all of them in one message."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The webhook's settings; the variable of each is `NIGHTCAP_` and the name in capitals.

    Attributes:
        namespace: Where Nightcap runs; its pods are never injected.
        sidecar_image: What is injected; required.
        spool_size: `sizeLimit` of the spool volume, as Kubernetes writes sizes.
        spool_bytes: What the segments may take of it.
        wait: How long a pod born into a capture is held back at most; empty for not at all.
        threads: How many requests are answered at a time.
        serving_secret: The Secret whose certificate the server shows, when that is not the one
            that the controller makes; sidecars pin the controller's root all the same.
        guaranteed_cpu: This and the next two are explained in `resources.Sizes`.
    """

    sidecar_image: str
    namespace: str
    tls_dir: Path
    listen_port: int
    metrics_port: int
    threads: int
    spool_size: str
    wait: str
    serving_secret: str
    guaranteed_cpu: str
    guaranteed_memory: str
    memory_limit: str
    release: str = nightcap.__version__

    @property
    def spool_bytes(self) -> int:
        return parse_size(self.spool_size) - KEPT_FREE_BYTES

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            guaranteed_cpu=self.guaranteed_cpu,
            guaranteed_memory=self.guaranteed_memory,
            memory_limit=self.memory_limit,
            ephemeral_limit=self.spool_size,
        )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings.

        Raises:
            BadSettings: with every variable that is missing or wrong.
        """
        read = _Reader(environ)
        settings = cls(
            sidecar_image=read.text("SIDECAR_IMAGE", ""),
            namespace=read.text("NAMESPACE", "nightcap-system"),
            tls_dir=Path(read.text("TLS_DIR", "/run/nightcap-tls")),
            listen_port=read.whole("LISTEN_PORT", 8443, 1, 65535),
            metrics_port=read.whole("METRICS_PORT", 9090, 0, 65535),
            threads=read.whole("THREADS", 32, 1, 256),
            spool_size=read.spool_size("SPOOL_SIZE", "256Mi"),
            wait=read.wait("WAIT", "3s"),
            serving_secret=read.text("SERVING_SECRET", ""),
            guaranteed_cpu=read.quantity("GUARANTEED_CPU", "50m", _LEAST_CPU),
            guaranteed_memory=read.quantity("GUARANTEED_MEMORY", "64Mi", _LEAST_MEMORY),
            memory_limit=read.quantity("MEMORY_LIMIT", "", _LEAST_MEMORY),
        )
        if not settings.sidecar_image:
            read.faults.append("NIGHTCAP_SIDECAR_IMAGE is not set: name the image to inject")
        if read.faults:
            raise BadSettings("; ".join(read.faults))
        return settings


class _Reader:
    """Reads variables one by one and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.faults: list[str] = []

    def text(self, name: str, default: str) -> str:
        return self._environ.get(f"NIGHTCAP_{name}", default).strip()

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        text = self.text(name, str(default))
        if not (len(text) <= 9 and text.isascii() and text.isdigit()) or not (
            least <= int(text) <= most
        ):
            self._refuse(name, text, f"must be a whole number from {least} to {most}")
            return default
        return int(text)

    def quantity(self, name: str, default: str, least: str) -> str:
        """A quantity that is not too small; empty where the default is."""
        text = self.text(name, default)
        amount = parse_quantity(text)
        is_enough = amount is not None and amount >= (parse_quantity(least) or 0)
        if not is_enough and not (text == default == ""):
            self._refuse(name, text, f"must be a quantity of at least {least}")
        return text

    def spool_size(self, name: str, default: str) -> str:
        text = self.text(name, default)
        try:
            size = parse_size(text)
        except BadQuantity as error:
            self._refuse(name, text, str(error))
            return default
        if size < LEAST_SPOOL_BYTES:
            self._refuse(name, text, f"must be at least {LEAST_SPOOL_BYTES >> 20}Mi")
        return text

    def wait(self, name: str, default: str) -> str:
        text = self.text(name, default)
        try:
            if text and parse_duration(text) > _LONGEST_WAIT_SECONDS:
                self._refuse(name, text, f"must be at most {_LONGEST_WAIT_SECONDS}s")
        except BadQuantity as error:
            self._refuse(name, text, str(error))
        return text

    def _refuse(self, name: str, text: str, rule: str) -> None:
        self.faults.append(f"NIGHTCAP_{name} is {text[:40]!r}: {rule}")
