"""One request of each kind, and what its answer changes in the spool.

What the collector holds is asked, never assumed: anything may break between any two bytes.
"""

import time
from collections.abc import Callable

from nightcap.contract import uploads
from nightcap.contract.reports import Report, dump_report
from nightcap.contract.uploads import SegmentName
from sidecar import answers, bodies, log, shipping
from sidecar.answers import ACCEPTED
from sidecar.collectors import Collectors
from sidecar.connection import EMPTY, Answer, Body, ConnectionBroken
from sidecar.segment import Segment
from sidecar.shipping import Job, Kind, Received, Turns, Verdict
from sidecar.spool import CaptureSpool, Spool


class Uploads:
    """Performs jobs over the connection that there is.

    Attributes:
        sent_bytes: Bytes of segments that went out so far.
    """

    def __init__(
        self, spool: Spool, collectors: Collectors, turns: Turns, on_news: Callable[[], None]
    ) -> None:
        """Prepare.

        Args:
            spool: What is sent, and told what became of it.
            collectors: Whom to ask.
            turns: Told what was reported, and who has to wait.
            on_news: Called when the capturing thread should look at its captures anew.
        """
        self._spool = spool
        self._collectors = collectors
        self._turns = turns
        self._on_news = on_news
        self.sent_bytes = 0

    def perform(self, job: Job) -> None:
        """Send one request and take over its answer.

        Raises:
            ConnectionBroken
        """
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
            body = bodies.open_body(capture.path(segment), segment)
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
            bodies.close_body(body)
        if answer.status in ACCEPTED:
            received = answers.received(answer, otherwise=end)
            self._accept(capture, segment, received, answer, completed=completes)
        elif answer.status == 409:
            self._mend_offset(capture, segment, answer, sent=offset, fresh=fresh)
        else:
            self._refused(capture, answer)

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
            answer = self._collectors.ask("PATCH", name, headers, body)
            delivered = answer.status in ACCEPTED
        finally:
            with self._spool.lock:
                if delivered:
                    self._turns.reported(capture.id, time.monotonic())
                else:
                    capture.report_due = capture.report_due or due
        self._note_until(capture, answer)
        return answer

    def _question(self, capture: CaptureSpool, segment: Segment) -> None:
        name = SegmentName(capture.id, segment.interface, segment.seq)
        answer = self._collectors.ask("HEAD", name, {})
        if answer.status == 404:
            received = Received(0, 0)
        elif answer.status in ACCEPTED:
            received = answers.received(answer, otherwise=0)
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
            if segment.removed:
                capture.holds(segment, received.offset)
            shipping.accepted(
                segment,
                received,
                completed=completed,
                now=time.monotonic(),
                pace=answers.pace(answer),
            )
            if segment.sealed and segment.acked < segment.size:
                segment.sealed = False  # the collector lost what it had not called durable
            nothing_there = segment.removed and segment.acked == 0
            if segment.shipped or nothing_there:
                capture.release(segment)

    def _mend_offset(
        self, capture: CaptureSpool, segment: Segment, answer: Answer, *, sent: int, fresh: bool
    ) -> None:
        received = answers.received(answer, otherwise=sent)
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
                self.put_off(capture, "offset refused")

    def _find_number(self, capture: CaptureSpool, segment: Segment) -> None:
        """Look for a number under which the collector holds nothing; its neighbours go first."""
        step = 1
        seq = max(segment.seq + 1, capture.ledger.next_seq.get(segment.interface, 0))
        while True:
            answer = self._collectors.ask(
                "HEAD", SegmentName(capture.id, segment.interface, seq), {}
            )
            if answer.status not in ACCEPTED and answer.status != 404:
                self._refused(capture, answer)
                return
            taken = answer.status != 404 and answers.received(answer, otherwise=0)
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
        if answer.status in ACCEPTED:
            with self._spool.lock:
                if final and capture.epoch == epoch:
                    capture.reported()
                    self._on_news()
        else:
            self._refused(capture, answer)

    def _note_until(self, capture: CaptureSpool, answer: Answer) -> None:
        until = answers.until(answer)
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
        why = f"{answer.status} {answer.text[:200].strip()}"
        self.put_off(capture, why, answers.pause(answer))

    def put_off(self, capture: CaptureSpool, why: str, pause: float = 0.0) -> None:
        """Leave a capture's things for later; said when it is the first time in a row."""
        with self._spool.lock:
            first = self._turns.put_off(capture.id, time.monotonic(), pause)
        if first:
            log.warning("collector refused, trying again", capture=capture.id, answer=why)
