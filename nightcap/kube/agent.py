"""What both clients of the API server send beside their questions."""

import socket
from functools import cache
from typing import Final

import nightcap

MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
"""Content type of a server-side apply; JSON is YAML, and `fieldManager` goes in the query."""


@cache
def user_agent() -> str:
    """Who asks, for the API server's audit log."""
    # Remembered: for each of many requests side by side, asking the kernel lets another thread in.
    return f"nightcap/{nightcap.__version__} ({socket.gethostname()})"
