"""How long `doctor` waits: for one answer, for all of them, and for an installation to be well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from nightcap.cli.session import Session
from nightcap.cli.words import Line, Mark

_ANSWER_SECONDS: Final = 20.0
"""Webhooks that are away take three seconds each before the API server answers without them."""
_MOST_SECONDS: Final = 120.0
_AGAIN_SECONDS: Final = 2.0


def until_well(
    look: Callable[[], Iterable[Line]],
    most_seconds: float,
    again_seconds: float = _AGAIN_SECONDS,
) -> Iterator[Line]:
    """What is said when nothing is a fault any more, or the time is over.

    Args:
        look: Says everything, each time anew.
        most_seconds: How long to look again.
        again_seconds: How long to wait in between.
    """
    deadline = time.monotonic() + most_seconds
    while True:
        said = list(look())
        if all(line.mark is not Mark.FAULT for line in said) or time.monotonic() > deadline:
            yield from said
            return
        time.sleep(again_seconds)


def patiently(
    session: Session,
    lines: Iterable[Line],
    *,
    answer_seconds: float = _ANSWER_SECONDS,
    most_seconds: float = _MOST_SECONDS,
) -> Iterator[Line]:
    """All that is said, or as much of it as an API server that is slow or away lets it.

    Args:
        session: By which it is asked.
        lines: What is found out one by one.
        answer_seconds: How long one answer may be silent.
        most_seconds: How long all of it may take.
    """
    from nightcap.kube.errors import ClusterUnavailable

    began = time.monotonic()
    try:
        session.client.read_seconds = answer_seconds
        for line in lines:
            yield line
            if time.monotonic() - began > most_seconds:
                yield Line(
                    Mark.FAULT,
                    f"the API server is slow: after {most_seconds:g} s the rest was left out",
                    "kubectl get --raw /readyz?verbose, and the load of the control plane",
                )
                return
    except ClusterUnavailable as error:
        if error.status:
            raise
        yield Line(
            Mark.FAULT,
            error.message,
            "look at --context, and whether `kubectl version` answers; nothing else can be said",
        )
