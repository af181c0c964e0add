"""What `kubectl nightcap` asks of the sidecar's image by exec, and what that answers.

    errand stream JSON        packets of this pod, as pcap on standard output, until standard
                              input ends or the time is over
    errand export CAPTURE     the spool's segments of a capture (by uid), as tar

Both write JSON lines to standard error. An image that is older than a command ends at once, with
0 and without a word: whoever asks looks for `STREAM_OPEN`, or for `EXPORT_INDEX` in the tar.
Needs the standard library alone.
"""

import json
from dataclasses import asdict, dataclass
from typing import Final

from nightcap.contract.filters import BadFilter, check_expression
from nightcap.contract.orders import is_interface

VERSION: Final = 1
MAX_SECONDS: Final = 86400
MAX_SNAP: Final = 262144

STREAM_OPEN: Final = "stream open"
"""Event on standard error: the capture is open; `interface` says where."""
STREAM_OVER: Final = "stream over"
"""Event on standard error, the last: `packets`, `received`, `dropped`, `reason`."""
EXPORT_INDEX: Final = "export.json"
"""First member of the tar: `{"v": 1, "segments": N}`."""


class BadStream(ValueError):
    """A request that is refused; the message names value and rule."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What is to be streamed.

    Attributes:
        seconds: After so long it ends by itself.
        filter: Of pcap-filter(7); empty for every packet.
        snap: Bytes kept of each packet.
        interface: Empty for the only one beside `lo`, or for `any` where there are several.
    """

    seconds: int
    filter: str = ""
    snap: int = MAX_SNAP
    interface: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.seconds <= MAX_SECONDS:
            raise BadStream(f"duration of {self.seconds} s: must be 1 to {MAX_SECONDS} s")
        if not 1 <= self.snap <= MAX_SNAP:
            raise BadStream(f"snap length {self.snap}: must be 1 to {MAX_SNAP}")
        if self.interface and not is_interface(self.interface):
            raise BadStream(f"{self.interface[:40]!r} is no name of an interface")
        try:
            check_expression(self.filter)
        except BadFilter as error:
            raise BadStream(str(error)) from error


def dump_stream(stream: Stream) -> str:
    """Write a request."""
    return json.dumps({"v": VERSION, **asdict(stream)})


def parse_stream(text: str) -> Stream:
    """Read a request; fields that nobody knows are passed over.

    Raises:
        BadStream: it cannot be read, or asks for what is not allowed.
    """
    try:
        value = json.loads(text)
        return Stream(
            seconds=int(value["seconds"]),
            filter=str(value.get("filter", "")),
            snap=int(value.get("snap", MAX_SNAP)),
            interface=str(value.get("interface", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, BadStream):
            raise
        raise BadStream(f"{text[:100]!r} cannot be read: {error!r}") from error
