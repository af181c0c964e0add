"""The shipping thread: segments and reports to a collector, by resumable append.

One connection, one request at a time, tried and retried for as long as it takes;
the capturing thread never waits for it. `shipping` decides what is next, `uploading`
performs it, `collectors` has the connection.
"""

import ssl
import threading
import time
from collections.abc import Callable

from sidecar import connection, log, shipping
from sidecar.collectors import Collectors
from sidecar.connection import ConnectionBroken
from sidecar.settings import Settings
from sidecar.shipping import Job, Turns
from sidecar.spool import Spool
from sidecar.uploading import Uploads


class Shipper:
    """Sends what the spool holds until it is stopped.

    Attributes:
        is_able: False when it cannot trust anybody, and so will never ship.
        is_sending: A request was chosen and its answer is not there yet. What is held while this is
            false stays here.
    """

    def __init__(
        self, spool: Spool, settings: Settings, local_port: int, on_news: Callable[[], None]
    ) -> None:
        """Prepare; nothing is sent before `start`.

        Args:
            spool: What is sent, and told what became of it.
            settings: Whom to trust, and where the token lies.
            local_port: The port that captures leave out.
            on_news: Called when the capturing thread should look at its captures anew.
        """
        self._spool = spool
        self._settings = settings
        self._on_news = on_news
        self._turns = Turns()
        self._collectors = Collectors(settings, local_port, spool.lock)
        self._uploads = Uploads(spool, self._collectors, self._turns, on_news)
        self._stopped = False
        self.is_able = True
        self.is_sending = False
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)

    @property
    def sent_bytes(self) -> int:
        """Bytes of segments that went out so far."""
        return self._uploads.sent_bytes

    def start(self) -> None:
        """Begin to ship."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the request that is under way."""
        with self._spool.news:
            self._stopped = True
            self._spool.news.notify_all()

    def hurry(self) -> None:
        """The pod is going, there is little time: forget the waits."""
        with self._spool.news:
            self._collectors.hurry()
            self._turns.hurry()
            self._spool.news.notify_all()

    def set_collectors(self, addresses: tuple[tuple[str, int], ...]) -> None:
        """Where to ship, in the order in which they are tried."""
        with self._spool.news:
            if self._collectors.set(addresses):
                self._spool.news.notify_all()

    def _run(self) -> None:
        context = self._trust()
        if context is None:
            self.is_able = False
            self._on_news()
            return
        while True:
            job = self._wait_for_job()
            if job is None:
                break
            try:
                self._collectors.connect(context)
                self._uploads.perform(job)
            except ConnectionBroken as error:
                self._collectors.broken(error)
            except Exception as error:  # noqa: BLE001 - this thread must outlive its own mistakes
                log.error("shipping failed", capture=job.capture.id, error=repr(error))
                self._uploads.put_off(job.capture, "error")
                self._collectors.disconnect()
        self._collectors.disconnect()

    def _trust(self) -> ssl.SSLContext | None:
        if not self._settings.collector_name or not self._settings.collector_ca:
            return None
        try:
            return connection.trust(self._settings.collector_ca)
        except (OSError, ValueError) as error:
            log.error("root certificate cannot be used, nothing is shipped", error=error)
            return None

    def _wait_for_job(self) -> Job | None:
        """The next job when it is due; None when it is time to end."""
        with self._spool.news:
            self.is_sending = False
            while not self._stopped:
                now = time.monotonic()
                captures = list(self._spool.captures.values())
                self._turns.keep(each.id for each in captures)
                if not self._collectors.addresses:
                    self._spool.news.wait()
                    continue
                if self._collectors.not_before > now:
                    self._spool.news.wait(self._collectors.not_before - now)
                    continue
                job, again = shipping.choose(captures, self._turns.of, now)
                if job is not None:
                    self._turns.of[job.capture.id].served_at = now
                    self.is_sending = True
                    return job
                self._spool.news.wait(max(0.01, again - now))
            return None
