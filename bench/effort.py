"""How long a benchmark takes: as long as its figure needs, or just long enough to see it work."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """Full by default.

    Attributes:
        share: Of the full number of rounds, samples and packets.
    """

    share: float = 1.0

    @property
    def is_full(self) -> bool:
        return self.share >= 1.0

    def of(self, full: int, least: int = 1) -> int:
        """So many instead of `full`."""
        return max(least, round(full * self.share))


QUICK = Effort(0.1)
