"""What the `nightcap.dev/...` annotations of a pod or namespace ask for.

Pure: reads the annotations, says every fault, and writes the `spec` of the
PacketCapture that stands for them. Whether the filter compiles is libpcap's to say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nightcap.contract import keys
from nightcap.contract.captures import (
    DEFAULT_DURATION,
    MAX_FILES,
    MAX_SEGMENT_BYTES,
    MIN_SEGMENT_BYTES,
    MIN_SEGMENT_SECONDS,
    RotationSpec,
)
from nightcap.contract.filters import BadFilter, check_expression
from nightcap.contract.orders import MAX_SNAP
from nightcap.contract.quantities import BadQuantity, parse_duration, parse_size

_PREFIX: Final = f"{keys.GROUP}/"
_DEFAULTS: Final = RotationSpec()
_OTHERS: Final = frozenset(
    {keys.CAPTURE, keys.ORDERS, keys.INJECTED, keys.NOT_INJECTED, keys.INJECT, keys.SOURCE}
)
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class AnnotationOptions:
    """What the annotations of one pod or namespace ask for, defaults filled in.

    Durations and sizes stay as they were written (they were checked), so that the
    capture's spec shows a person's own words.

    Attributes:
        on: False for `nightcap.dev/capture: off`, whatever else is written beside it.
        snap_length: Bytes kept of each packet.
        max_files: Segments that stay in the spool, per pod and interface.
    """

    on: bool
    filter: str = ""
    duration: str = DEFAULT_DURATION
    snap_length: int = MAX_SNAP
    max_file_size: str = str(_DEFAULTS.max_file_size)
    rotate_every: str = _DEFAULTS.max_file_age
    max_files: int = _DEFAULTS.max_files


def parse_options(
    annotations: Mapping[str, str] | None,
) -> tuple[AnnotationOptions | None, tuple[str, ...]]:
    """Read the annotations of a pod or namespace.

    | nightcap.dev/capture | other values | answer |
    | --- | --- | --- |
    | absent | any | (None, ()) |
    | `off` | any | (off, ()): stopping needs no well-written options |
    | `on` | all good | (the options, ()) |
    | `on` | some bad | (None, one sentence for each) |
    | anything else | any | (None, faults) |

    Returns:
        (options, faults): the options are None when nothing is asked for, or when
        something is wrong; each fault quotes the annotation and its value and names the rule.
    """
    annotations = annotations or {}
    wanted = annotations.get(keys.CAPTURE)
    if wanted is None:
        return None, ()
    if wanted == keys.CAPTURE_OFF:
        return AnnotationOptions(on=False), ()
    faults: list[str] = []
    if wanted != keys.CAPTURE_ON:
        faults.append(f"{keys.CAPTURE}: {_quote(wanted)} must be on or off")
    options = AnnotationOptions(
        on=True,
        filter=_filter(annotations, faults),
        duration=_duration(annotations, keys.DURATION, DEFAULT_DURATION, 0, faults),
        snap_length=_whole(annotations, keys.SNAP_LENGTH, MAX_SNAP, MAX_SNAP, faults),
        max_file_size=_size(annotations, faults),
        rotate_every=_duration(
            annotations, keys.ROTATE_EVERY, _DEFAULTS.max_file_age, MIN_SEGMENT_SECONDS, faults
        ),
        max_files=_whole(annotations, keys.MAX_FILES, _DEFAULTS.max_files, MAX_FILES, faults),
    )
    # A key with a typing error would otherwise be a silent default.
    faults.extend(
        f"{_quote(key)} is no annotation of Nightcap; the options are {', '.join(keys.OPTIONS)}"
        for key in sorted(annotations)
        if key.startswith(_PREFIX) and key not in keys.OPTIONS and key not in _OTHERS
    )
    return (None, tuple(faults)) if faults else (options, ())


def spec_of_options(options: AnnotationOptions) -> dict[str, Any]:
    """The fields of a PacketCapture's `spec` that the annotations decide.

    All of them, also those at their default: an option that was removed goes back.
    Which pods (`podNames`), `startTime` and `suspend` are the controller's to add.
    """
    return {
        "filter": options.filter,
        "duration": options.duration,
        "snapLength": options.snap_length,
        "rotation": {
            "maxFileSize": options.max_file_size,
            "maxFileAge": options.rotate_every,
            "maxFiles": options.max_files,
        },
    }


def _filter(annotations: Mapping[str, str], faults: list[str]) -> str:
    text = annotations.get(keys.FILTER, "").strip()
    try:
        check_expression(text)
    except BadFilter as error:
        faults.append(f"{keys.FILTER}: {error}")
    return text


def _duration(
    annotations: Mapping[str, str], key: str, default: str, least: float, faults: list[str]
) -> str:
    text = annotations.get(key, default)
    try:
        if parse_duration(text) < least:
            faults.append(f"{key}: {_quote(text)} must be at least {least:g}s")
    except BadQuantity as error:
        faults.append(f"{key}: {error}")
    return text


def _size(annotations: Mapping[str, str], faults: list[str]) -> str:
    text = annotations.get(keys.MAX_FILE_SIZE, str(_DEFAULTS.max_file_size))
    try:
        size = parse_size(text)
    except BadQuantity as error:
        faults.append(f"{keys.MAX_FILE_SIZE}: {error}")
        return text
    if not MIN_SEGMENT_BYTES <= size <= MAX_SEGMENT_BYTES:
        faults.append(
            f"{keys.MAX_FILE_SIZE}: {_quote(text)} is {size} bytes; "
            f"must be from {MIN_SEGMENT_BYTES} to {MAX_SEGMENT_BYTES}"
        )
    return text


def _whole(
    annotations: Mapping[str, str], key: str, default: int, most: int, faults: list[str]
) -> int:
    text = annotations.get(key)
    if text is None:
        return default
    # The length first: turning ten thousand digits into a number takes its time.
    if not (len(text) <= 10 and text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        faults.append(f"{key}: {_quote(text)} must be a whole number from 1 to {most}")
        return default
    return int(text)


def _quote(text: str) -> str:
    return repr(text[:_SHOWN])
