"""Ledgers of captures that were shipped whole and have left the orders: they may be resumed.

    .ended/{capture uid}/state.json

A resumed capture counts on from there, its limits hold over both parts, and it uses no number
again. A few hundred bytes each; nothing else of a capture is kept.
"""

import os
from typing import Final

from sidecar.ledger import LEDGER_FILE

FOLDER: Final = ".ended"
MOST: Final = 64
"""As many as orders can hold captures; the oldest go first."""


def keep(root: str, capture_id: str) -> bool:
    """Put the ledger of a capture aside; False when that cannot be done."""
    folder = f"{root}/{FOLDER}"
    try:
        os.makedirs(f"{folder}/{capture_id}", exist_ok=True)
        os.replace(f"{root}/{capture_id}/{LEDGER_FILE}", f"{folder}/{capture_id}/{LEDGER_FILE}")
        _tidy(folder)
    except OSError:
        return False
    return True


def take_back(root: str, capture_id: str) -> bool:
    """Put a ledger back where that of a capture lies; True when there was one."""
    kept = f"{root}/{FOLDER}/{capture_id}"
    if not os.path.isdir(kept):
        return False
    try:
        os.rename(kept, f"{root}/{capture_id}")
    except OSError:
        return False  # a later one is there already
    return True


def _tidy(folder: str) -> None:
    kept = sorted(os.scandir(folder), key=lambda entry: entry.stat().st_mtime_ns)
    for entry in kept[:-MOST]:
        os.unlink(f"{entry.path}/{LEDGER_FILE}")
        os.rmdir(entry.path)
