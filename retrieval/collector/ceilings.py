"""What captures of each namespace may come to, as the collector knows it from its watch.

Orders are obeyed by whoever reads them and may have been forged: what a ceiling says has to hold
where bytes are kept, too.
"""

from collections.abc import Callable

from nightcap.contract.ceilings import CaptureCeiling, Ceiling, ceiling_of
from nightcap.kube.reflector import Change


class Ceilings:
    """Ceilings by namespace, put together once for each change of any of them.

    Args:
        items: Every ceiling of Nightcap's own namespace, as of now.
    """

    def __init__(self, items: Callable[[], tuple[CaptureCeiling, ...]]) -> None:
        self._items = items
        self._known: dict[str, Ceiling | None] = {}

    def on_change(self, _change: Change[CaptureCeiling]) -> None:
        """Forget what was put together."""
        self._known = {}

    def of(self, namespace: str) -> Ceiling | None:
        """What holds in a namespace; None where nothing is limited."""
        # Taken before the items are read: what comes of older ones is not kept beyond a change.
        known = self._known
        if namespace not in known:
            known[namespace] = ceiling_of(namespace, self._items())
        return known[namespace]
