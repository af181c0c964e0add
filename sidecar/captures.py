"""The captures of one pod: what is to be done with each is performed here.

Decisions are made in `lifecycle`; the loop that asks for them is the worker's.
"""

import time
from collections.abc import Callable

from nightcap.contract.orders import CaptureOrder, Orders
from nightcap.contract.reports import Reason, State
from nightcap.pcap.libpcap import PcapError
from sidecar import interfaces, lifecycle, log
from sidecar.capture import Recorder
from sidecar.draining import Draining
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
from sidecar.loop import LoopDetector
from sidecar.pump import Pump
from sidecar.spool import CaptureSpool, Spool
from sidecar.stream import SpoolFull, Stream


class Captures:
    """All that run, and those whose last packets are still awaited."""

    def __init__(
        self,
        spool: Spool,
        loops: LoopDetector,
        local_port: int,
        other_fds: list[int],
        wake: Callable[[], None],
    ) -> None:
        """Nothing runs yet.

        Args:
            spool: Where packets go.
            loops: Is told when a capture begins anew.
            local_port: Of our own uploads, which are left out.
            other_fds: What else the pump listens to.
            wake: Ends the pump's run; callable from any thread.
        """
        self.pump = Pump(other_fds, self._trouble)
        self.recorders: dict[str, Recorder] = {}
        self._spool = spool
        self._loops = loops
        self._local_port = local_port
        self._wake = wake
        self._orders = Orders()
        # The orders that were acted on last.
        self._performed: dict[str, CaptureOrder] = {}
        self._draining = Draining()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is recorded or awaited."""
        return not self.recorders and not self._draining

    @property
    def is_opening(self) -> bool:
        """Whether a capture is neither open nor has failed."""
        return any(recorder.is_opening for recorder in self.recorders.values())

    def streams(self) -> list[Stream]:
        """All that are open."""
        running = [
            stream for recorder in self.recorders.values() for stream in recorder.streams.values()
        ]
        return running + self._draining.streams

    def next_at(self, now: float) -> float:
        """When there is something to do, besides packets, by the monotonic clock."""
        wall = time.time()
        moments = [self._draining.next_at()]
        for recorder in self.recorders.values():
            moments.append(now + max(0.0, recorder.order.until - wall))
            moments += [
                stream.blocked_until
                for stream in recorder.streams.values()
                if stream.blocked_until > now
            ]
        return min(moments)

    def _trouble(self, stream: Stream, error: PcapError | SpoolFull, now: float) -> None:
        for recorder in self.recorders.values():
            if recorder.streams.get(stream.interface) is not stream:
                continue
            self.pump.drop(stream)
            if isinstance(error, SpoolFull):
                again = self._spool.make_room()
                recorder.block(stream.interface, str(error), now, again=again)
            else:
                recorder.lose(stream.interface, str(error), now)

    def _known(self) -> dict[str, Known]:
        known = {}
        for capture_id, spool in self._spool.captures.items():
            recorder = self.recorders.get(capture_id)
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

    def apply(
        self, orders: Orders, now: float, *, links_changed: bool, terminating: bool = False
    ) -> None:
        """Bring the captures to where the orders want them.

        Args:
            orders: The latest that could be read.
            now: Monotonic clock.
            links_changed: Interfaces may have come or gone.
            terminating: The pod is going.
        """
        self._orders = orders
        known = self._known()
        actions = lifecycle.plan(orders, known, now=time.time(), terminating=terminating)
        for action in actions:
            match action:
                case Begin(order) | Reopen(order):
                    self._begin(order, now)
                case Adjust(order):
                    self.recorders[order.id].adjust(order)
                    self._note_order(order)
                case Finish(order, end):
                    self._finish(order, end, now)
                case Refuse(capture_id, message):
                    self._refuse(capture_id, message, now)
                case Discard(capture_id):
                    self._stop_recorder(capture_id, now)
                case Forget(capture_id):
                    self._forget(capture_id)
        if self.recorders:
            self._open_missing(now, links_changed=links_changed)
        self._close_drained(now)
        for recorder in self.recorders.values():
            recorder.refill()
        self.pump.watch(
            (stream for each in self.recorders.values() for stream in each.streams.values()), now
        )

    def _open_missing(self, now: float, *, links_changed: bool) -> None:
        recorders = self.recorders.values()
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
        self.recorders[order.id] = Recorder(
            spool,
            order,
            self._local_port,
            self.streams,
            lambda: self._draining.of(order.id),
            self._wake,
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
        spool.finished = not self._draining.of(order.id)
        if news:
            log.info("capture finished", capture=order.id, reason=end.reason)

    def _say_ended(self, spool: CaptureSpool, reason: Reason) -> None:
        recorder = self.recorders.get(spool.id)
        status = recorder.status() if recorder else spool.counted(State.FINISHED, reason, "")
        if status.state is State.FAILED and status.packets == 0:
            spool.say(status)  # it never could: that is what its reader must know
        else:
            spool.say(status._replace(state=State.FINISHED, reason=reason))

    def _refuse(self, capture_id: str, message: str, now: float) -> None:
        spool = self._spool.capture(capture_id)
        self._stop_recorder(capture_id, now)
        self._performed.pop(capture_id, None)
        if spool.ledger.gone or (spool.finished and spool.status.message == message):
            return
        with self._spool.lock:
            spool.epoch += 1
            spool.ledger.reported = False
            spool.ledger.end = None
        spool.say(spool.counted(State.FAILED, Reason.BAD_ORDERS, message))
        spool.finished = not self._draining.of(capture_id)

    def _stop_recorder(self, capture_id: str, now: float) -> None:
        recorder = self.recorders.pop(capture_id, None)
        if recorder is None:
            return
        with self._spool.news:
            # What is not recorded any more cannot come back.
            recorder.spool.held = recorder.spool.looping = False
            self._spool.news.notify_all()
        for stream in recorder.streams.values():
            self.pump.drop(stream)
        self._draining.add(recorder, recorder.streams.values(), now)

    def _forget(self, capture_id: str) -> None:
        recorder = self.recorders.pop(capture_id, None)
        streams = list(recorder.streams.values()) if recorder else []
        for stream in streams + self._draining.take(capture_id):
            self.pump.drop(stream)
            stream.discard()
        self._performed.pop(capture_id, None)
        self._spool.forget(capture_id)
        log.info("capture removed", capture=capture_id)

    def _close_drained(self, now: float) -> None:
        """Close the interfaces whose last packets have arrived."""
        for capture_id in self._draining.finish(now):
            spool = self._spool.captures.get(capture_id)
            if spool is None or capture_id in self.recorders:
                continue
            with self._spool.news:
                if spool.ledger.gone:
                    spool.drop_all()
                else:
                    self._settle(spool)
                self._spool.news.notify_all()

    def _settle(self, spool: CaptureSpool) -> None:
        """The last segment is complete: its packets are the final ones."""
        old = spool.status
        spool.say(spool.counted(old.state, old.reason, old.message))
        spool.finished = True
        # What was dropped to the last, for whoever reads the ledger alone.
        spool.save_quietly()

    # What is said.

    def publish_status(self) -> None:
        """Say how it stands, and keep the spool within its limits."""
        for recorder in self.recorders.values():
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

    def look_for_loops(self, now: float, sent_bytes: int, *, sending: bool) -> None:
        """Stop to ship what is our own upload coming back.

        Args:
            now: Monotonic clock.
            sent_bytes: Uploaded so far.
            sending: A request to the collector is on its way.
        """
        recorded = {name: each.written()[1] for name, each in self.recorders.items()}
        matched = self._loops.observe(now, sent_bytes, recorded, sending=sending)
        if matched is not None:
            log.info("looked for a loop", recorded_with_upload=sorted(matched))
        with self._spool.lock:
            for name, capture in self._spool.captures.items():
                is_running = name in self.recorders
                looping = is_running and name in self._loops.looping
                if looping and not capture.looping:
                    log.error("upload is recorded, shipping stops", capture=name)
                capture.looping = looping
                capture.hold(held=is_running and (looping or self._loops.paused))
