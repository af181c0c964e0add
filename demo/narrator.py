"""Tells the walk-through: what is shown, why, and whether each promise was kept."""

import sys
import time


class Narrator:
    """Prints steps and promises; remembers what was not kept."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._step = 0
        self._bold, self._green, self._red, self._plain = (
            ("\033[1m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 4
        )
        self.broken: list[str] = []

    def step(self, title: str, why: str) -> None:
        self._step += 1
        seconds = time.monotonic() - self._started
        self._print(f"\n{self._bold}{self._step}. {title}{self._plain}  [{seconds:.0f} s]")
        self._print(f"   {why}")

    def say(self, text: str) -> None:
        for line in text.rstrip().splitlines():
            self._print(f"   | {line}")

    def command(self, text: str) -> None:
        self._print(f"   $ {text}")

    def promise(self, what: str, kept: bool, evidence: str = "") -> None:
        """Say whether a promise was kept; a broken one makes the walk-through fail at its end."""
        mark = f"{self._green}kept  {self._plain}" if kept else f"{self._red}BROKEN{self._plain}"
        self._print(f"   {mark} {what}" + (f": {evidence}" if evidence else ""))
        if not kept:
            self.broken.append(what)

    def end(self) -> bool:
        """Say how it went; true when every promise was kept."""
        seconds = time.monotonic() - self._started
        if self.broken:
            self._print(f"\n{self._red}{len(self.broken)} promises were not kept:{self._plain}")
            for what in self.broken:
                self._print(f"   {what}")
        else:
            self._print(f"\n{self._green}Every promise was kept.{self._plain}")
        self._print(f"The walk-through took {seconds:.0f} s.")
        return not self.broken

    def _print(self, line: str) -> None:
        print(line, flush=True)
