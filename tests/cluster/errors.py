"""What can go wrong, named after who can mend it."""

from __future__ import annotations

from collections.abc import Sequence


class ClusterError(Exception):
    """Base of everything that this package raises on purpose."""


class MachineNotReady(ClusterError):
    """The machine lacks something; its owner can mend it. Nothing was touched."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__(
            "The disposable cluster cannot run on this machine; nothing was touched.\n"
            + "\n".join(f"  - {fault}" for fault in faults)
        )


class CommandFailed(ClusterError):
    """A program that we called failed."""

    def __init__(self, argv: Sequence[str], code: int, output: str) -> None:
        self.code = code
        self.output = output
        super().__init__(f"{' '.join(argv)} ended with code {code}:\n{output}")


class BootFailed(ClusterError):
    """A part of the cluster did not come up in time; the message has the end of its log."""
