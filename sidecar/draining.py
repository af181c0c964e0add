"""Streams that take nothing more in, and whose last packets are still on their way."""

from collections.abc import Iterable

from sidecar.capture import Recorder
from sidecar.stream import NEVER, Stream


class Draining:
    """They are written and counted to the last, under whatever orders hold now."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Recorder, Stream]] = []

    def __bool__(self) -> bool:
        return bool(self._pairs)

    @property
    def streams(self) -> list[Stream]:
        """All of them."""
        return [stream for _, stream in self._pairs]

    def of(self, capture_id: str) -> list[Stream]:
        """Those of one capture."""
        return [stream for each, stream in self._pairs if each.spool.id == capture_id]

    def add(self, recorder: Recorder, streams: Iterable[Stream], now: float) -> None:
        """Let nothing more in; `finish` closes them when the kernel has handed over all it held."""
        for stream in streams:
            stream.silence(now)
            self._pairs.append((recorder, stream))

    def next_at(self) -> float:
        """When the first of them may be closed, by the monotonic clock."""
        return min((stream.close_at for _, stream in self._pairs), default=NEVER)

    def finish(self, now: float) -> set[str]:
        """Close those whose last packets have arrived.

        Returns:
            The captures that have none left here, of those that had.
        """
        due = [pair for pair in self._pairs if pair[1].close_at <= now]
        self._pairs = [pair for pair in self._pairs if pair[1].close_at > now]
        for recorder, stream in due:
            stream.close()
            del recorder.streams[stream.interface]
        return {recorder.spool.id for recorder, _ in due if not self.of(recorder.spool.id)}

    def take(self, capture_id: str) -> list[Stream]:
        """Give up those of one capture; returns them as they are."""
        taken = self.of(capture_id)
        self._pairs = [pair for pair in self._pairs if pair[0].spool.id != capture_id]
        return taken
