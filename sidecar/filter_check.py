"""Whether a long filter may be compiled here, found out beside the worker.

Compiling holds up all captures of the pod. A filter of 256 bytes takes 20 ms of CPU at most; the
slowest known of 1024 bytes (fifty times `portrange`) takes 250 ms, and seconds on a busy node. So
the long ones are compiled in a helper process with limits first, and what meets them is refused.
"""

import threading
from collections.abc import Callable
from typing import Final

DIRECT_BYTES: Final = 256
"""Filters up to here are compiled without asking the helper, which takes longer than they do."""
_CPU_SECONDS: Final = 0.4
"""Twice that, since a filter is compiled alone and with what leaves our own traffic out."""


class FilterCheck:
    """One filter that is being checked.

    Attributes:
        is_done: `fault` is known.
        fault: Why the filter is refused; empty when it may be compiled.
    """

    def __init__(self, expression: str, on_done: Callable[[], None]) -> None:
        """Begin.

        Args:
            expression: pcap-filter(7), without names.
            on_done: Called from another thread.
        """
        self._expression = expression
        self._on_done = on_done
        self.is_done = len(expression) <= DIRECT_BYTES
        self.fault = ""
        if not self.is_done:
            threading.Thread(target=self._run, name="filter", daemon=True).start()

    def _run(self) -> None:
        from nightcap.pcap import bounded  # brings subprocess with it

        self.fault = bounded.find_too_costly(self._expression, _CPU_SECONDS) or ""
        self.is_done = True
        self._on_done()
