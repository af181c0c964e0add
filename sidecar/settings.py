"""What the worker is told by its environment; read once, nothing in it can make it stop."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from nightcap.contract import paths
from sidecar.loop import WATCH_SECONDS

ORDERS_DIR: Final = "NIGHTCAP_ORDERS_DIR"
SPOOL_DIR: Final = "NIGHTCAP_SPOOL_DIR"
TOKEN_FILE: Final = "NIGHTCAP_TOKEN_FILE"  # noqa: S105 - a variable's name
LOOP_SECONDS: Final = "NIGHTCAP_LOOP_SECONDS"
DEFAULT_SPOOL_BYTES: Final = 224 * 2**20


class Settings(NamedTuple):
    """The worker's surroundings.

    Attributes:
        collector_name: TLS name that the collector must prove; empty: nothing is shipped.
        collector_ca: Root to trust, PEM.
        spool_bytes: What all segments together may take.
        loop_seconds: How long recording and upload have to be alike before a loop is looked for.
        faults: What could not be read; the defaults hold instead.
    """

    orders_dir: str = paths.ORDERS_DIR
    spool_dir: str = paths.SPOOL_DIR
    token_file: str = f"{paths.TOKEN_DIR}/{paths.TOKEN_FILE}"
    collector_name: str = ""
    collector_ca: str = ""
    spool_bytes: int = DEFAULT_SPOOL_BYTES
    release: str = ""
    loop_seconds: float = WATCH_SECONDS
    faults: tuple[str, ...] = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the variables that the webhook sets (and those that tests set)."""
        faults = []
        spool_bytes = DEFAULT_SPOOL_BYTES
        text = environ.get(paths.ENV_SPOOL_BYTES, "")
        if text.isascii() and text.isdigit() and int(text) > 0:
            spool_bytes = int(text)
        elif text:
            faults.append(f"{paths.ENV_SPOOL_BYTES}: {text[:40]!r} must be a whole number above 0")
        missing = (paths.ENV_COLLECTOR_NAME, paths.ENV_COLLECTOR_CA)
        faults += [
            f"{name} is not set: nothing is shipped" for name in missing if not environ.get(name)
        ]
        return cls(
            orders_dir=environ.get(ORDERS_DIR) or paths.ORDERS_DIR,
            spool_dir=environ.get(SPOOL_DIR) or paths.SPOOL_DIR,
            token_file=environ.get(TOKEN_FILE) or f"{paths.TOKEN_DIR}/{paths.TOKEN_FILE}",
            collector_name=environ.get(paths.ENV_COLLECTOR_NAME, ""),
            collector_ca=environ.get(paths.ENV_COLLECTOR_CA, ""),
            spool_bytes=spool_bytes,
            release=environ.get(paths.ENV_RELEASE, ""),
            loop_seconds=_seconds(environ.get(LOOP_SECONDS, "")),
            faults=tuple(faults),
        )


def _seconds(text: str) -> float:
    try:
        return max(1.0, float(text))
    except ValueError:
        return WATCH_SECONDS
