"""Where the disposable cluster keeps what it builds and what it runs.

Two folders and no third: the cache outlives the cluster, the state folder dies with it.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
PARTS = PACKAGE / "parts"
PROJECT = PACKAGE.parents[1]

# Which of several clusters on one machine, so that two checkouts can be tested side by side.
NUMBER = int(os.environ.get("NIGHTCAP_CLUSTER_NUMBER") or 0)
if not 0 <= NUMBER <= 9:
    raise ValueError(f"NIGHTCAP_CLUSTER_NUMBER is {NUMBER}: give a number from 0 to 9")
_SUFFIX = f"-{NUMBER}" if NUMBER else ""

# Everything with a name that others on the machine see begins with this word.
PREFIX = f"nightcap{_SUFFIX}"

# Short, because unix socket paths below it must stay under 108 bytes.
STATE = Path(f"/var/lib/nightcap-cluster{_SUFFIX}")


def every_state_folder() -> list[Path]:
    """The state folders of all clusters of ours on this machine, whatever their number."""
    return [folder for folder in STATE.parent.glob("nightcap-cluster*") if folder.is_dir()]


def every_number() -> list[int]:
    """The numbers of all clusters of ours on this machine."""
    return [int(folder.name.partition("cluster-")[2] or 0) for folder in every_state_folder()]


# Every process of ours carries this variable with the state folder as its value, so that an
# orphan can be told from what others run.
MARK = "NIGHTCAP_CLUSTER"


def cache_folder() -> Path:
    """The folder of built parts, as the XDG base directory specification has it."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says that a relative value is to be ignored.
    base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "nightcap"
