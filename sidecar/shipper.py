"""The shipping thread: segments and reports to a collector, by resumable append.

One connection, one request at a time, tried and retried for as long as it takes;
the capturing thread never waits for it. Anything may break between any two bytes:
what the collector holds is asked, never assumed.
"""

import os
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from nightcap.contract import uploads
from nightcap.contract.reports import Report, dump_report
from nightcap.contract.uploads import MAX_BODY_BYTES, SegmentName, upload_path
from nightcap.pcap import formats
from sidecar import connection, log, shipping
from sidecar.connection import EMPTY, Answer, Body, Connection, ConnectionBroken
from sidecar.segment import Segment
from sidecar.settings import Settings
from sidecar.shipping import Delay, Job, Kind, Received, Turn, Verdict
from sidecar.spool import CaptureSpool, Spool

TERMINATING_DELAY_SECONDS: Final = 1.0
_BYTE_ORDER: Final = "<" if sys.byteorder == "little" else ">"
_SAY_AGAIN_SECONDS: Final = 60.0
_ACCEPTED: Final = frozenset({200, 201, 204})
_MAX_TOKEN_BYTES: Final = 65536


class Shipper:
    """Sends what the spool holds until it is stopped.

    Attributes:
        sent_bytes: Bytes of segments that went out so far.
        is_able: False when it cannot trust anybody, and so will never ship.
        terminating: The pod is going: retry sooner, there is little time.
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
        self._local_port = local_port
        self._on_news = on_news
        self._collectors: tuple[tuple[str, int], ...] = ()
        self._next_collector = 0
        self._turns: dict[str, Turn] = {}
        self._connection: Connection | None = None
        self._proven = False
        """The connection has carried an answer; when it breaks then, it may just have been old."""
        self._delay = Delay()
        self._not_before = 0.0
        self._said_at = float("-inf")
        self._stopped = False
        self.sent_bytes = 0
        self.is_able = True
        self.terminating = False
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)

    def start(self) -> None:
        """Begin to ship."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the request that is under way."""
        with self._spool.news:
            self._stopped = True
            self._spool.news.notify_all()

    def hurry(self) -> None:
        """The pod is going: forget the waits."""
        with self._spool.news:
            self.terminating = True
            self._not_before = 0.0
            for turn in self._turns.values():
                turn.retry_at = 0.0
            self._spool.news.notify_all()

    def set_collectors(self, collectors: tuple[tuple[str, int], ...]) -> None:
        """Where to ship, in the order in which they are tried."""
        with self._spool.news:
            if collectors != self._collectors:
                self._collectors = collectors
                self._next_collector = 0
                self._not_before = 0.0
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
                self._ensure_connection(context)
                self._perform(job)
            except ConnectionBroken as error:
                self._broken(error)
            except Exception as error:  # noqa: BLE001 - this thread must outlive its own mistakes
                log.error("shipping failed", capture=job.capture.id, error=repr(error))
                self._put_off(job.capture, "error")
                self._disconnect()
        self._disconnect()

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
            while not self._stopped:
                now = time.monotonic()
                captures = list(self._spool.captures.values())
                self._turns = {each.id: self._turns.get(each.id, Turn()) for each in captures}
                if not self._collectors:
                    self._spool.news.wait()
                    continue
                if self._not_before > now:
                    self._spool.news.wait(self._not_before - now)
                    continue
                job, again = shipping.choose(captures, self._turns, now)
                if job is not None:
                    self._turns[job.capture.id].served_at = now
                    return job
                self._spool.news.wait(max(0.01, again - now))
            return None

    # The connection.

    def _ensure_connection(self, context: ssl.SSLContext) -> None:
        if self._connection is not None and self._connection.address in self._collectors:
            return
        self._disconnect()
        collectors = self._collectors
        address = collectors[self._next_collector % len(collectors)]
        self._proven = False
        self._connection = Connection(
            address,
            name=self._settings.collector_name,
            context=context,
            port=self._local_port,
        )
        log.info("collector connected", address=f"{address[0]}:{address[1]}")

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _broken(self, error: ConnectionBroken) -> None:
        self._disconnect()
        if self._proven:
            self._proven = False
            return  # it may have been idle for too long: once more, at once
        self._next_collector += 1
        self._wait_longer()
        now = time.monotonic()
        if now - self._said_at >= _SAY_AGAIN_SECONDS:
            self._said_at = now
            log.warning("collector not reached, trying again", error=str(error))

    def _wait_longer(self) -> None:
        most = TERMINATING_DELAY_SECONDS if self.terminating else shipping.LAST_DELAY_SECONDS
        wait = self._delay.longer(_spread(), most)
        with self._spool.lock:
            self._not_before = time.monotonic() + wait

    def _ask(
        self,
        method: str,
        name: SegmentName,
        headers: dict[str, str],
        body: Body = EMPTY,
    ) -> Answer:
        if self._connection is None:
            raise ConnectionBroken("not connected")
        headers["Authorization"] = f"Bearer {self._token()}"
        answer = self._connection.request(method, upload_path(name), headers, body)
        self._proven = True
        self._delay.reset()
        self._said_at = float("-inf")
        if connection.wants_close(answer):
            self._disconnect_softly()
        return answer

    def _disconnect_softly(self) -> None:
        self._proven = False
        self._disconnect()

    def _token(self) -> str:
        """Read each time: the kubelet renews it."""
        try:
            with open(self._settings.token_file, "rb") as file:
                token = file.read(_MAX_TOKEN_BYTES).strip().decode("ascii")
        except (OSError, ValueError) as error:
            raise ConnectionBroken(f"token cannot be read: {error}") from error
        if not token.isprintable() or not token:
            raise ConnectionBroken("token is empty or no token")
        return token

    # The jobs.

    def _perform(self, job: Job) -> None:
        if job.segment is None:
            self._report(job.capture, final=job.kind is Kind.FINAL)
        elif job.kind is Kind.ASK:
            self._question(job.capture, job.segment)
        else:
            self._append(job.capture, job.segment)

    def _append(self, capture: CaptureSpool, segment: Segment) -> None:
        with self._spool.lock:
            offset = segment.acked
            fresh = not segment.ours and not segment.recovered
            body = self._open_body(capture, segment)
            end = offset + body.size
            completes = segment.complete and end >= segment.size
            segment.busy = True
            name = SegmentName(capture.id, segment.interface, segment.seq)
        try:
            answer = self._patch(capture, name, offset, body, completes=completes)
        except ConnectionBroken:
            # Perhaps it arrived and only the answer did not.
            segment.ours = True
            raise
        finally:
            segment.busy = False
            self.sent_bytes += body.size
            if body.fd >= 0:
                os.close(body.fd)
        if answer.status in _ACCEPTED:
            received = _received(answer, otherwise=end)
            self._accept(capture, segment, received, answer, completed=completes)
        elif answer.status == 409:
            self._mend_offset(capture, segment, answer, sent=offset, fresh=fresh)
        else:
            self._refused(capture, answer)

    def _open_body(self, capture: CaptureSpool, segment: Segment) -> Body:
        if segment.removed or segment.size <= segment.acked:
            return EMPTY
        path = capture.path(segment)
        end = shipping.body_end(segment)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if end is None:
            end = _walk(path, segment.acked, segment.size)
        return Body(fd, segment.acked, end - segment.acked)

    def _patch(
        self, capture: CaptureSpool, name: SegmentName, offset: int, body: Body, *, completes: bool
    ) -> Answer:
        report = capture.report(time.time())
        return self._send(capture, name, offset, body, report, completes=completes)

    def _send(
        self,
        capture: CaptureSpool,
        name: SegmentName,
        offset: int,
        body: Body,
        report: Report,
        *,
        completes: bool,
    ) -> Answer:
        with self._spool.lock:
            due, capture.report_due = capture.report_due, False
        headers = {
            uploads.OFFSET: str(offset),
            uploads.COMPLETE: uploads.format_boolean(completes),
            uploads.REPORT: dump_report(report),
            "Content-Type": "application/vnd.tcpdump.pcap",
        }
        delivered = False
        try:
            answer = self._ask("PATCH", name, headers, body)
            delivered = answer.status in _ACCEPTED
        finally:
            with self._spool.lock:
                if delivered:
                    turn = self._turns.get(capture.id)
                    if turn is not None:
                        turn.reported_at = time.monotonic()
                        turn.delay.reset()
                else:
                    capture.report_due = capture.report_due or due
        self._note_until(capture, answer)
        return answer

    def _question(self, capture: CaptureSpool, segment: Segment) -> None:
        name = SegmentName(capture.id, segment.interface, segment.seq)
        answer = self._ask("HEAD", name, {})
        if answer.status == 404:
            received = Received(0, 0)
        elif answer.status in _ACCEPTED:
            received = _received(answer, otherwise=0)
        else:
            self._refused(capture, answer)
            return
        if not received.complete:
            segment.sealed = False  # the collector died between all bytes and their end
        self._accept(capture, segment, received, answer, completed=False)

    def _accept(
        self,
        capture: CaptureSpool,
        segment: Segment,
        received: Received,
        answer: Answer,
        *,
        completed: bool,
    ) -> None:
        with self._spool.lock:
            if segment.removed and received.offset < segment.size:
                # It had received, and now has not, what is here no more.
                capture.ledger.lost_bytes += segment.size - received.offset
            shipping.accepted(
                segment, received, completed=completed, now=time.monotonic(), pace=_pace(answer)
            )
            if segment.sealed and segment.acked < segment.size:
                segment.sealed = False  # the collector lost what it had not called durable
            nothing_there = segment.removed and segment.acked == 0
            if segment.shipped or nothing_there:
                capture.release(segment)

    def _mend_offset(
        self, capture: CaptureSpool, segment: Segment, answer: Answer, *, sent: int, fresh: bool
    ) -> None:
        received = _received(answer, otherwise=sent)
        verdict = shipping.judge_offset(segment, sent=sent, received=received.offset, fresh=fresh)
        log.info(
            "offset corrected",
            capture=capture.id,
            interface=segment.interface,
            segment=segment.seq,
            sent=sent,
            received=received.offset,
            verdict=verdict,
        )
        match verdict:
            case Verdict.TAKEN:
                self._find_number(capture, segment)
            case Verdict.RESUME | Verdict.DONE:
                done = verdict is Verdict.DONE
                self._accept(capture, segment, received, answer, completed=done)
                segment.next_at = 0.0 if not done else segment.next_at
            case Verdict.STUCK:
                self._put_off(capture, "offset refused")

    def _find_number(self, capture: CaptureSpool, segment: Segment) -> None:
        """Look for a number under which the collector holds nothing; its neighbours go first."""
        step = 1
        seq = max(segment.seq + 1, capture.ledger.next_seq.get(segment.interface, 0))
        while True:
            answer = self._ask("HEAD", SegmentName(capture.id, segment.interface, seq), {})
            if answer.status not in _ACCEPTED and answer.status != 404:
                self._refused(capture, answer)
                return
            taken = answer.status != 404 and _received(answer, otherwise=0)
            if not taken or (taken.offset == 0 and not taken.complete):
                break
            seq, step = seq + step, step * 2
        capture.renumber(segment, seq)

    def _report(self, capture: CaptureSpool, *, final: bool) -> None:
        with self._spool.lock:
            epoch = capture.epoch
            interface = capture.first_interface
            # Nothing exists under the next number: an empty body there is a heartbeat.
            name = SegmentName(capture.id, interface, capture.ledger.next_seq.get(interface, 0))
            report = capture.report(time.time(), shipped=final)
        answer = self._send(capture, name, 0, EMPTY, report, completes=False)
        if answer.status in _ACCEPTED:
            with self._spool.lock:
                if final and capture.epoch == epoch:
                    capture.reported()
                    self._on_news()
        else:
            self._refused(capture, answer)

    def _note_until(self, capture: CaptureSpool, answer: Answer) -> None:
        until = _number(answer, uploads.UNTIL)
        if until is not None:
            with self._spool.lock:
                if capture.heard_until(until):
                    self._on_news()

    def _refused(self, capture: CaptureSpool, answer: Answer) -> None:
        if answer.status == 410:
            log.info("capture was deleted", capture=capture.id)
            with self._spool.lock:
                capture.ledger.gone = True
                capture.drop_all()
            self._on_news()
            return
        self._put_off(capture, f"{answer.status} {answer.text[:200].strip()}")

    def _put_off(self, capture: CaptureSpool, why: str) -> None:
        with self._spool.lock:
            turn = self._turns.setdefault(capture.id, Turn())
            first = turn.delay.seconds == 0
            most = TERMINATING_DELAY_SECONDS if self.terminating else shipping.LAST_DELAY_SECONDS
            turn.retry_at = time.monotonic() + turn.delay.longer(_spread(), most)
        if first:
            log.warning("collector refused, trying again", capture=capture.id, answer=why)


def _spread() -> float:
    # Not by `random`, which would stay in memory for this alone.
    return 0.5 + os.urandom(1)[0] / 256


def _received(answer: Answer, *, otherwise: int) -> Received:
    offset, durable = _number(answer, uploads.OFFSET), _number(answer, uploads.DURABLE)
    return Received(
        offset=otherwise if offset is None else int(offset),
        durable=0 if durable is None else int(durable),
        complete=answer.headers.get(uploads.COMPLETE.lower()) == "?1",
    )


def _pace(answer: Answer) -> float:
    pace = _number(answer, uploads.PACE)
    if pace is None:
        return shipping.DEFAULT_PACE_SECONDS
    return min(pace, shipping.MAX_PACE_SECONDS)


def _number(answer: Answer, name: str) -> float | None:
    """A header's number, 0 or more; None when it is not there or is none."""
    try:
        value = float(answer.headers.get(name.lower(), ""))
    except ValueError:
        return None
    return value if 0 <= value < 2**63 else None


def _walk(path: str, start: int, size: int) -> int:
    """Where the last whole record ends that fits into one body."""
    at = max(start, formats.HEADER_BYTES)
    with open(path, "rb") as file:
        file.seek(at)
        data = file.read(min(size, start + MAX_BODY_BYTES) - at)
    whole = formats.record_boundary(data, _BYTE_ORDER)
    # Not at the start of a record, which only a damaged collector can bring about: any cut will do.
    return at + (whole or len(data))
