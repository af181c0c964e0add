"""How often and how much at once one asker may: decided over counts, with `now` as argument.

Whoever asks too often is told when to come again (429); nobody is shut out for what others
do. Askers with a good token are told apart by who they are, and not by address: through the
API server's service proxy all of them come from one.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

_MAX_KNOWN: Final = 10_000


class TooMuch(Exception):
    """One asker's limit is reached.

    Attributes:
        retry_after_seconds: When there is room again, as far as is known.
    """

    def __init__(self, sentence: str, retry_after_seconds: int) -> None:
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rate:
    """So many a second for each asker, and a burst before that counts."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, asker: str, now: float) -> None:
        """Count one request.

        Raises:
            TooMuch: this asker's burst is used up; the request does not count.
        """
        with self._lock:
            bucket = self._filled(asker, now)
            if bucket.tokens < 1:
                raise TooMuch(f"more than {self._per_second:g} requests a second; wait", 1)
            bucket.tokens -= 1

    def is_used_up(self, asker: str, now: float) -> bool:
        """Whether `take` would raise."""
        with self._lock:
            return asker in self._buckets and self._filled(asker, now).tokens < 1

    def _filled(self, asker: str, now: float) -> _Bucket:
        bucket = self._buckets.setdefault(asker, _Bucket(self._burst, now))
        passed = max(0.0, now - bucket.at)
        bucket.tokens = min(self._burst, bucket.tokens + passed * self._per_second)
        bucket.at = now
        self._buckets.move_to_end(asker)
        # The one that was silent longest has its burst again, most likely.
        while len(self._buckets) > _MAX_KNOWN:
            self._buckets.popitem(last=False)
        return bucket


class Seats:
    """So many answers at once for each asker."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._taken: dict[str, int] = {}

    def take(self, asker: str) -> None:
        """Sit down.

        Raises:
            TooMuch: all seats of this asker are taken.
        """
        with self._lock:
            taken = self._taken.get(asker, 0)
            if taken >= self._count:
                raise TooMuch(f"{taken} of your requests are under way; wait for one to end", 5)
            self._taken[asker] = taken + 1

    def leave(self, asker: str) -> None:
        with self._lock:
            self._taken[asker] -= 1
            if not self._taken[asker]:
                del self._taken[asker]

    @contextmanager
    def taken(self, asker: str) -> Iterator[None]:
        """Sit as long as the block runs."""
        self.take(asker)
        try:
            yield
        finally:
            self.leave(asker)


class Strangers:
    """Keeps the API server from being asked about guessed tokens without end.

    What counts is another token that is not valid; the same one again is answered from memory.
    A token that was good a moment ago is never held up by those who guess from its address.
    """

    def __init__(self, per_second: float = 10, burst: int = 100) -> None:
        self._rate = Rate(per_second, burst)
        self._lock = threading.Lock()
        self._known: OrderedDict[int, bool] = OrderedDict()

    def check(self, address: str, token: str, now: float) -> None:
        """Whether a token may be looked at.

        Raises:
            TooMuch: it is a new one, and many that came from there were not valid.
        """
        with self._lock:
            if hash(token) in self._known:
                return
        if self._rate.is_used_up(address, now):
            raise TooMuch("many tokens from this address were not valid; wait", 1)

    def note(self, address: str, token: str, now: float, *, is_good: bool) -> None:
        """What became of it."""
        with self._lock:
            was_good = self._known.get(hash(token))
            self._known[hash(token)] = is_good
            self._known.move_to_end(hash(token))
            while len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        if not is_good and was_good is not False and not self._rate.is_used_up(address, now):
            self._rate.take(address, now)
