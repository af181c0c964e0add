"""Whether a long filter may be compiled here, found out beside the worker.

Compiling holds up all captures of the pod. A filter of 256 bytes takes 20 ms of CPU at most; the
slowest known of 1024 bytes (fifty times `portrange`) takes 250 ms, and seconds on a busy node. So
the long ones are compiled in a helper process with limits first, and what meets them is refused.
A helper that gives no answer says nothing of the filter: another one is asked.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from sidecar import log

DIRECT_BYTES: Final = 256
"""Filters up to here are compiled without asking the helper, which takes longer than they do."""
_CPU_SECONDS: Final = 0.4
"""Twice that, since a filter is compiled alone and with what leaves our own traffic out."""
PATIENCE_SECONDS: Final = 30.0
AGAIN_SECONDS: Final = 5.0


class FilterCheck:
    """One filter that is being checked.

    Attributes:
        is_done: `fault` is known.
        fault: Why the filter is refused; empty when it may be compiled.
        doubt: Why it is not known yet, while that is for another reason than that it takes time.
    """

    def __init__(
        self,
        expression: str,
        on_done: Callable[[], None],
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        """Begin.

        Args:
            expression: pcap-filter(7), without names.
            on_done: Called from another thread.
            patience_seconds: How long one helper may take.
            again_seconds: How long after one that gave no answer the next is asked.
        """
        self._expression = expression
        self._on_done = on_done
        self._patience_seconds = patience_seconds
        self._again_seconds = again_seconds
        self.is_done = len(expression) <= DIRECT_BYTES
        self.fault = ""
        self.doubt = ""
        if not self.is_done:
            threading.Thread(target=self._run, name="filter", daemon=True).start()

    def _run(self) -> None:
        from nightcap.pcap import bounded  # brings subprocess with it

        while True:
            try:
                fault = bounded.find_too_costly(
                    self._expression, _CPU_SECONDS, self._patience_seconds
                )
            except bounded.Undecided as error:
                self.doubt = f"it {error}, which may be this machine's fault"
                log.error("filter not checked, trying again", error=str(error))
                time.sleep(self._again_seconds)
                continue
            self.fault, self.doubt = fault or "", ""
            self.is_done = True
            self._on_done()
            return
