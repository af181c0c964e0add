"""The worker: exists while there are orders, records, and ends when all is shipped.

The loop is the shell around pure decisions: `lifecycle.plan` says what has to
happen, this module performs it. Its thread never waits for the network.
"""

import gc
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from nightcap.contract import paths
from nightcap.contract.orders import BadOrders, Orders, parse_orders
from sidecar import interfaces, log, memory
from sidecar.captures import Captures
from sidecar.local_port import LocalPort
from sidecar.loop import LoopDetector
from sidecar.orders_file import OrdersFile
from sidecar.settings import Settings
from sidecar.spool import Spool

if TYPE_CHECKING:
    from sidecar.shipper import Shipper

TICK_SECONDS: Final = 1.0
"""The wall clock may jump, and some file systems do not notify: look at least so often."""


_GIVE_BACK_SECONDS: Final = 30.0
"""Memory is given back so often at least, and sooner after the start, when most is left over."""


class Worker:
    """All captures of one pod."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._orders_file = OrdersFile(settings.orders_dir)
        self._links = interfaces.LinkWatch()
        self._port = LocalPort()
        self._spool = Spool(settings.spool_dir, settings.spool_bytes)
        self._orders = Orders()
        # Orders could be read once; before that nothing is known of any capture.
        self._readable = False
        self._shipper: Shipper | None = None
        self._loops = LoopDetector(settings.loop_seconds)
        self._terminating = False
        self._is_marked = False
        # Not before the shipping thread has imported and connected.
        self._give_back_seconds = TICK_SECONDS
        self._give_back_at = time.monotonic() + self._give_back_seconds
        self._wake_out, self._wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._captures = Captures(
            self._spool,
            self._loops,
            self._port.number,
            [self._wake_out, self._orders_file.fd, self._links.fd],
            self.wake,
        )

    def run(self) -> int:
        """Work until nothing is left to be done."""
        self._catch_signals()
        self._remove_marker()
        self._recover()
        self._read_orders()
        self._apply(time.monotonic(), links_changed=True)
        self._captures.publish_status()
        self._mark_if_open()
        memory.use_one_arena()
        memory.give_back()
        self._start_shipping()
        for fault in self._settings.faults:
            log.warning("setting not usable", fault=fault)
        # What has been imported stays: the collector need not walk it again and again.
        gc.freeze()
        gc.enable()
        self._loop()
        if self._shipper is not None:
            self._shipper.stop()
        log.info("worker ends", captures=len(self._orders.captures))
        return 0

    def _recover(self) -> None:
        """Take over what earlier workers left."""
        names = self._spool.leftovers()
        if names:
            from sidecar import recovery  # a first start has no time for it

            recovery.recover(self._spool, names)

    @property
    def _marker(self) -> str:
        return f"{self._settings.spool_dir}/{paths.OPEN_MARKER}"

    def _catch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(self._wake_in, warn_on_full_buffer=False)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._terminating = True

    def wake(self) -> None:
        """Make the loop look at everything; callable from any thread."""
        try:
            os.write(self._wake_in, b"w")
        except BlockingIOError:
            return  # it is awake already

    def _remove_marker(self) -> None:
        try:
            os.unlink(self._marker)
        except FileNotFoundError:
            return
        except OSError as error:
            log.error("open marker cannot be removed", error=error)

    def _mark_if_open(self) -> None:
        if self._is_marked or self._captures.is_opening:
            return
        self._is_marked = True
        try:
            os.close(os.open(self._marker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        except OSError as error:
            log.error("open marker cannot be written", error=error)

    def _start_shipping(self) -> None:
        # Imports TLS, which takes longer than to open a capture: only now.
        from sidecar.shipper import Shipper

        self._shipper = Shipper(self._spool, self._settings, self._port.number, self.wake)
        self._shipper.set_collectors(self._orders.collectors)
        self._shipper.start()

    # The loop.

    def _loop(self) -> None:
        told = False
        while True:
            ready = self._captures.pump.run(self._next_round(time.monotonic()))
            now = time.monotonic()
            if self._wake_out in ready:
                self._drain_wake()
            links_changed = self._links.fd in ready
            if links_changed:
                self._links.drain()
            if self._orders_file.changed():
                self._read_orders()
            if self._terminating and not told:
                told = True
                log.info("terminating", captures=len(self._captures.recorders))
                if self._shipper is not None:
                    self._shipper.hurry()
            self._apply(now, links_changed=links_changed)
            if self._shipper is not None:
                shipper = self._shipper
                self._captures.look_for_loops(now, shipper.sent_bytes, sending=shipper.is_sending)
            self._captures.publish_status()
            self._mark_if_open()
            if self._is_done():
                return
            if now >= self._give_back_at:
                self._give_back_seconds = min(_GIVE_BACK_SECONDS, 2 * self._give_back_seconds)
                self._give_back_at = now + self._give_back_seconds
                memory.give_back()

    def _apply(self, now: float, *, links_changed: bool) -> None:
        if self._readable:
            self._captures.apply(
                self._orders,
                now,
                links_changed=links_changed or self._links.fd < 0,
                terminating=self._terminating,
            )

    def _next_round(self, now: float) -> float:
        return min(now + TICK_SECONDS, self._loops.next_at(now), self._captures.next_at(now))

    def _drain_wake(self) -> None:
        try:
            os.read(self._wake_out, 4096)
        except BlockingIOError:
            return

    # Orders.

    def _read_orders(self) -> None:
        text = self._orders_file.read()
        if text is None:
            return
        try:
            orders = parse_orders(text)
        except BadOrders as error:
            # Half-written or forged: what runs goes on under the orders it has.
            log.error("orders cannot be read", error=str(error))
            return
        for capture_id, message in orders.refused:
            log.error("order refused", capture=capture_id, message=message)
        self._orders, self._readable = orders, True
        if self._shipper is not None:
            self._shipper.set_collectors(orders.collectors)

    def _is_done(self) -> bool:
        """Whether all captures are finished, and everybody who should know knows."""
        if not self._readable:
            return True  # the dormant program starts us again when the orders change
        if not self._captures.is_idle:
            return False
        is_able = self._shipper is not None and self._shipper.is_able
        if self._terminating and not (is_able and self._orders.collectors):
            return True
        with self._spool.lock:
            return all(
                capture.ledger.gone or (capture.ledger.reported and not capture.segments)
                for capture in self._spool.captures.values()
            )


def main() -> int:
    """Run one worker.

    Returns:
        0 when nothing is left to be done; 1 after a fault of its own: then the dormant program
        starts it again, and it goes on from the spool.
    """
    try:
        return Worker(Settings.from_environ(os.environ)).run()
    except Exception as error:  # noqa: BLE001 - the last place where it can be said
        import traceback

        log.error("worker failed", error=repr(error), traceback=traceback.format_exc())
        return 1
