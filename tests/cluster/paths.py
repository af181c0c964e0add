"""Where the disposable cluster keeps what it builds and what it runs.

Two folders and no third: the cache outlives the cluster, the state folder dies with it.
"""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
PARTS = PACKAGE / "parts"
PROJECT = PACKAGE.parents[1]

# Short, because unix socket paths below it must stay under 108 bytes.
STATE = Path("/var/lib/nightcap-cluster")

# Every process of ours carries this variable with the state folder as its value, so that an
# orphan can be told from what others run.
MARK = "NIGHTCAP_CLUSTER"


def cache_folder() -> Path:
    """The folder of built parts, as the XDG base directory specification has it."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says that a relative value is to be ignored.
    base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "nightcap"
