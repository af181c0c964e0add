"""Many names in a short sentence."""

from collections.abc import Sequence


def first_of(names: Sequence[object], most: int) -> str:
    """The first of many names, and how many there are besides: `a, b and 3 more`.

    Args:
        names: As text each; in the order in which they are named.
        most: So many are named.
    """
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
