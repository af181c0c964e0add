"""The worker: exists while there are orders, records, and ends when all is shipped.

The loop is the shell around pure decisions: `lifecycle.plan` says what has to
happen, this module performs it. Its thread never waits for the network.
"""

import gc
import os
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nightcap.contract import paths
from nightcap.contract.orders import BadOrders, CaptureOrder, Orders, parse_orders
from nightcap.contract.reports import Reason, State
from nightcap.pcap.libpcap import PcapError
from sidecar import interfaces, lifecycle, log
from sidecar.capture import Recorder, SpoolFull, Stream
from sidecar.lifecycle import (
    Adjust,
    Begin,
    Discard,
    End,
    Finish,
    Forget,
    Known,
    Refuse,
    Reopen,
)
from sidecar.local_port import LocalPort
from sidecar.loop import LoopDetector
from sidecar.orders_file import OrdersFile
from sidecar.settings import Settings
from sidecar.spool import CaptureSpool, Spool, Status

if TYPE_CHECKING:
    from sidecar.shipper import Shipper

TICK_SECONDS: Final = 1.0
"""The wall clock may jump, and some file systems do not notify: look at least so often."""


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
        # The orders that were acted on last.
        self._performed: dict[str, CaptureOrder] = {}
        self._recorders: dict[str, Recorder] = {}
        self._closing: list[tuple[Recorder, Stream]] = []
        self._shipper: Shipper | None = None
        self._loops = LoopDetector(settings.loop_seconds)
        self._terminating = False
        self._limit_met = False
        self._poll = select.poll()
        self._polled: set[int] = set()
        # What the loop serves without looking; see _watch.
        self._watched: list[tuple[Recorder, Stream]] = []
        self._must_watch = True
        self._wake_out, self._wake_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Work until nothing is left to be done."""
        self._catch_signals()
        self._remove_marker()
        self._spool.recover()
        self._read_orders()
        self._apply(time.monotonic(), links_changed=True)
        self._publish_status()
        self._mark_open()
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

    @property
    def _marker(self) -> Path:
        return self._settings.spool_dir / paths.OPEN_MARKER

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
            self._marker.unlink(missing_ok=True)
        except OSError as error:
            log.error("open marker cannot be removed", error=error)

    def _mark_open(self) -> None:
        try:
            self._marker.touch()
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
        next_tick = 0.0
        while True:
            ready = self._wait(next_tick)
            now = time.monotonic()
            self._pump(ready, now)
            woken = self._wake_out in ready
            links_changed = self._links.fd in ready
            orders_changed = self._orders_file.fd in ready
            if not (woken or links_changed or orders_changed or now >= next_tick):
                if not self._limit_met:
                    continue
                self._limit_met = False
            if woken:
                self._drain_wake()
            if links_changed:
                self._links.drain()
            if self._orders_file.changed():
                self._read_orders()
            if self._terminating and not told:
                told = True
                log.info("terminating", captures=len(self._recorders))
                if self._shipper is not None:
                    self._shipper.hurry()
            self._apply(now, links_changed=links_changed)
            self._look_for_loops(now)
            self._publish_status()
            if self._is_done():
                return
            next_tick = self._next_tick(now)
            self._must_watch = True

    def _watch(self) -> None:
        """Take note of what is to be polled.

        Not in each round: at 200 000 packets a second the kernel hands over a hundred blocks, and
        what is done for each of them is a good part of what a packet costs.
        """
        self._must_watch = False
        self._watched = self._streams()
        wanted = {self._wake_out, self._orders_file.fd, self._links.fd}
        wanted |= {stream.live.fd for _, stream in self._watched}
        wanted.discard(-1)
        for fd in self._polled - wanted:
            self._poll.unregister(fd)
        for fd in wanted - self._polled:
            self._poll.register(fd, select.POLLIN)
        self._polled = wanted

    def _wait(self, next_tick: float) -> list[int]:
        if self._must_watch:
            self._watch()
        pause = max(0.0, next_tick - time.monotonic())
        return [fd for fd, _ in self._poll.poll(pause * 1000)]

    def _streams(self) -> list[tuple[Recorder, Stream]]:
        return [
            (recorder, stream)
            for recorder in self._recorders.values()
            for stream in recorder.streams.values()
        ]

    def _pump(self, ready: list[int], now: float) -> None:
        for recorder, stream in self._watched:
            try:
                if stream.live.fd in ready and stream.pump(now, recorder.budget):
                    self._limit_met = True
                stream.tick(now)
            except PcapError as error:
                self._lose(recorder, stream, Reason.CAPTURE_ERROR, str(error), now)
            except SpoolFull as error:
                self._lose(recorder, stream, Reason.SPOOL_FULL, str(error), now)

    def _lose(
        self, recorder: Recorder, stream: Stream, reason: Reason, message: str, now: float
    ) -> None:
        self._unpoll(stream)
        self._must_watch = True
        recorder.lose(stream.interface, reason, message, now)
        if reason is Reason.SPOOL_FULL and self._spool.make_room():
            recorder.retry(stream.interface)

    def _unpoll(self, stream: Stream) -> None:
        # Before its number can come back as another file's.
        if stream.live.fd in self._polled:
            self._polled.discard(stream.live.fd)
            self._poll.unregister(stream.live.fd)

    def _drain_wake(self) -> None:
        try:
            os.read(self._wake_out, 4096)
        except BlockingIOError:
            return

    def _next_tick(self, now: float) -> float:
        moments = [now + TICK_SECONDS, now + self._loops.interval]
        for _, stream in self._streams():
            moments += [stream.needs_flush_at, stream.rotates_at]
        moments += [stream.close_at for _, stream in self._closing]
        wall = time.time()
        moments += [
            now + max(0.0, recorder.order.until - wall) for recorder in self._recorders.values()
        ]
        return min(moments)

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

    def _known(self) -> dict[str, Known]:
        known = {}
        for capture_id, spool in self._spool.captures.items():
            recorder = self._recorders.get(capture_id)
            packets, bytes_ = (
                recorder.written() if recorder else (spool.ledger.packets, spool.ledger.bytes)
            )
            order = self._performed.get(capture_id)
            known[capture_id] = Known(
                order=order,
                running=recorder is not None,
                packets=packets,
                bytes=bytes_,
                end=spool.ledger.end,
                collector_until=self._collector_until(capture_id, spool),
                gone=spool.ledger.gone,
            )
        return known

    def _collector_until(self, capture_id: str, spool: CaptureSpool) -> float | None:
        """What the collector said of the end, if it said so under the orders that hold."""
        said = spool.ledger.collector_until
        for order in self._orders.captures:
            if order.id == capture_id and said is not None and said[0] == order.until:
                return said[1]
        return None

    def _apply(self, now: float, *, links_changed: bool) -> None:
        """Bring the captures to where the orders want them."""
        if not self._readable:
            return
        actions = lifecycle.plan(
            self._orders, self._known(), now=time.time(), terminating=self._terminating
        )
        for action in actions:
            match action:
                case Begin(order) | Reopen(order):
                    self._begin(order, now)
                case Adjust(order):
                    self._recorders[order.id].adjust(order)
                    self._note_order(order)
                case Finish(order, end):
                    self._finish(order, end, now)
                case Refuse(capture_id, message):
                    self._refuse(capture_id, message, now)
                case Discard(capture_id):
                    self._stop_recorder(capture_id, now)
                case Forget(capture_id):
                    self._forget(capture_id)
        if self._recorders:
            self._open_missing(now, links_changed=links_changed or self._links.fd < 0)
        self._close_drained(now)

    def _open_missing(self, now: float, *, links_changed: bool) -> None:
        recorders = self._recorders.values()
        due = [recorder for recorder in recorders if links_changed or recorder.is_due(now)]
        if due:
            states = interfaces.present()
            for recorder in due:
                recorder.open_missing(states, now, links_changed=links_changed)

    def _begin(self, order: CaptureOrder, now: float) -> None:
        self._stop_recorder(order.id, now)
        self._loops.forget(order.id)
        spool = self._spool.capture(order.id)
        with self._spool.lock:
            spool.epoch += 1
            spool.finished = False
            spool.ledger.end = None
            spool.ledger.reported = False
        self._note_order(order)
        self._recorders[order.id] = Recorder(
            spool, order, self._port.number, lambda: len(self._watched)
        )
        log.info("capture begun", capture=order.id, namespace=order.namespace, name=order.name)

    def _note_order(self, order: CaptureOrder) -> None:
        self._performed[order.id] = order
        spool = self._spool.capture(order.id)
        spool.ordered_until = order.until
        spool.first_interface = order.interfaces[0] if order.interfaces else "any"

    def _finish(self, order: CaptureOrder, end: End, now: float) -> None:
        spool = self._spool.capture(order.id)
        # After a restart an end that was reported need not be reported again.
        news = spool.ledger.end != end
        with self._spool.lock:
            if news:
                spool.epoch += 1
                spool.ledger.reported = False
            spool.ledger.end = end
        self._note_order(order)
        self._say_ended(spool, end.reason)
        self._stop_recorder(order.id, now)
        spool.finished = not self._is_closing(order.id)
        if news:
            log.info("capture finished", capture=order.id, reason=end.reason)

    def _say_ended(self, spool: CaptureSpool, reason: Reason) -> None:
        recorder = self._recorders.get(spool.id)
        ledger = spool.ledger
        status = recorder.status() if recorder else None
        if status is not None and status.state is State.FAILED and status.packets == 0:
            spool.say(status)  # it never could: that is what its reader must know
            return
        spool.say(
            Status(
                State.FINISHED,
                reason,
                status.message if status else "",
                status.packets if status else ledger.packets,
                status.bytes if status else ledger.bytes,
                status.received if status else ledger.received,
                status.dropped if status else ledger.dropped,
            )
        )

    def _refuse(self, capture_id: str, message: str, now: float) -> None:
        spool = self._spool.capture(capture_id)
        self._stop_recorder(capture_id, now)
        self._performed.pop(capture_id, None)
        if spool.ledger.gone or (spool.finished and spool.status.message == message):
            return
        ledger = spool.ledger
        with self._spool.lock:
            spool.epoch += 1
            ledger.reported = False
            ledger.end = None
        spool.say(
            Status(
                State.FAILED,
                Reason.BAD_ORDERS,
                message,
                ledger.packets,
                ledger.bytes,
                ledger.received,
                ledger.dropped,
            )
        )
        spool.finished = not self._is_closing(capture_id)

    def _stop_recorder(self, capture_id: str, now: float) -> None:
        recorder = self._recorders.pop(capture_id, None)
        if recorder is None:
            return
        with self._spool.news:
            # What is not recorded any more cannot come back.
            recorder.spool.held = recorder.spool.looping = False
            self._spool.news.notify_all()
        for stream in recorder.streams.values():
            stream.silence(now)
            self._unpoll(stream)
            self._closing.append((recorder, stream))

    def _forget(self, capture_id: str) -> None:
        recorder = self._recorders.pop(capture_id, None)
        streams = list(recorder.streams.values()) if recorder else []
        streams += [stream for each, stream in self._closing if each.spool.id == capture_id]
        self._closing = [pair for pair in self._closing if pair[0].spool.id != capture_id]
        for stream in streams:
            self._unpoll(stream)
            stream.close(lambda: (0, 0))
        self._performed.pop(capture_id, None)
        self._spool.forget(capture_id)
        log.info("capture removed", capture=capture_id)

    def _is_closing(self, capture_id: str) -> bool:
        return any(recorder.spool.id == capture_id for recorder, _ in self._closing)

    def _close_drained(self, now: float) -> None:
        """Close the interfaces whose last packets have arrived."""
        due = [pair for pair in self._closing if pair[1].close_at <= now]
        self._closing = [pair for pair in self._closing if pair[1].close_at > now]
        for recorder, stream in due:
            stream.close(recorder.budget)
            del recorder.streams[stream.interface]
        for capture_id in {recorder.spool.id for recorder, _ in due}:
            spool = self._spool.captures.get(capture_id)
            if spool is None or self._is_closing(capture_id) or capture_id in self._recorders:
                continue
            with self._spool.news:
                if spool.ledger.gone:
                    spool.drop_all()
                else:
                    self._settle(spool)
                self._spool.news.notify_all()

    def _settle(self, spool: CaptureSpool) -> None:
        """The last segment is complete: its packets are the final ones."""
        ledger, old = spool.ledger, spool.status
        spool.say(
            Status(
                old.state,
                old.reason,
                old.message,
                ledger.packets,
                ledger.bytes,
                ledger.received,
                ledger.dropped,
            )
        )
        spool.finished = True

    # What is said, and the end.

    def _publish_status(self) -> None:
        for recorder in self._recorders.values():
            status = recorder.status()
            if recorder.spool.say(status):
                log.info(
                    "capture state",
                    capture=recorder.order.id,
                    state=status.state,
                    reason=status.reason,
                    message=status.message,
                )
        self._spool.enforce()

    def _look_for_loops(self, now: float) -> None:
        if self._shipper is None or not (self._recorders or self._loops.paused):
            return
        recorded = {name: each.written()[1] for name, each in self._recorders.items()}
        self._loops.observe(now, self._shipper.sent_bytes, recorded)
        with self._spool.news:
            for name, capture in self._spool.captures.items():
                is_running = name in self._recorders
                looping = is_running and name in self._loops.looping
                if looping and not capture.looping:
                    log.error("upload is recorded, shipping stops", capture=name)
                capture.looping = looping
                held = is_running and (looping or self._loops.paused)
                if capture.held and not held:
                    self._spool.news.notify_all()
                capture.held = held

    def _is_done(self) -> bool:
        """Whether all captures are finished, and everybody who should know knows."""
        if not self._readable:
            return True  # the dormant program starts us again when the orders change
        if self._closing or self._recorders:
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
