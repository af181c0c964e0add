"""A thread that looks after something every few seconds, whatever becomes of one look."""

import logging
import threading
from collections.abc import Callable

from nightcap.kube.errors import ApiError

log = logging.getLogger(__name__)


class Rounds:
    """Calls a function again and again, with a pause before each call.

    Args:
        name: Of the thread, and in logs.
        look: What is called; what it raises is logged, and the next round comes all the same.
        every_seconds: The pause.
    """

    def __init__(self, name: str, look: Callable[[], object], every_seconds: float) -> None:
        self._name = name
        self._look = look
        self._every_seconds = every_seconds
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether a long look is to end early."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = 10) -> None:
        """End after the look that is under way; waits for it as many seconds, None for ever."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.wait(self._every_seconds):
            try:
                self._look()
            except ApiError as error:
                facts = {"round": self._name, "error": str(error)}
                log.warning("round not done, the API server does not answer", extra=facts)
            except Exception:
                # What is wrong with one look must not end all the others.
                log.exception("round failed", extra={"round": self._name})
