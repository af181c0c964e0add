"""PacketCapture as the API server stores it, of either group, and how it is read.

What a projectcalico.org/v3 manifest cannot say is filled in while it is read. What its fields come
to is `nightcap.contract.captures`', which has these names, too.
"""

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from nightcap.contract import keys
from nightcap.contract.objects import ObjectMeta
from nightcap.contract.orders import MAX_SNAP
from nightcap.contract.selectors import LabelSelector

DEFAULT_DURATION = "1h"
DEFAULT_TTL = "24h"
DEFAULT_MAX_SIZE = "1Gi"


class FilterRule(Struct, frozen=True):
    """One of `spec.filters`: protocol AND any of the ports."""

    protocol: str | int | None = None
    ports: tuple[int | str, ...] = ()


class RotationSpec(Struct, frozen=True, rename="camel"):
    """`spec.rotation`: per pod and interface, in the spool."""

    max_file_size: str | int = "10Mi"
    max_file_age: str = "1h"
    max_files: int = 10


class LimitsSpec(Struct, frozen=True, rename="camel"):
    """`spec.limits`: per pod, of what retrieval keeps; 0 means no limit."""

    max_size: str | int = DEFAULT_MAX_SIZE
    max_packets: int = 0
    when_full: str = "Finish"


class Spec(Struct, frozen=True, rename="camel"):
    """`spec` of a PacketCapture, field by field as in the CRD.

    Attributes:
        selector: Structure in nightcap.dev, a sentence in projectcalico.org.
    """

    selector: LabelSelector | str | None = None
    pod_names: tuple[str, ...] = ()
    filters: tuple[FilterRule, ...] = ()
    filter: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None
    duration: str | None = None
    suspend: bool = False
    interfaces: tuple[str, ...] = ()
    snap_length: int = MAX_SNAP
    rotation: RotationSpec = RotationSpec()
    limits: LimitsSpec = LimitsSpec()
    ttl_after_finished: str = DEFAULT_TTL


class PacketCapture(Struct, frozen=True, rename="camel"):
    """A capture as the API server stores it."""

    metadata: ObjectMeta
    spec: Spec = Spec()
    status: dict[str, Any] | None = None
    api_version: str = keys.API_VERSIONS[keys.GROUP]

    @property
    def group(self) -> str:
        return self.api_version.partition("/")[0]

    @property
    def is_calico(self) -> bool:
        """Whether it is of projectcalico.org, where other defaults hold."""
        return self.group == keys.CALICO_GROUP

    @property
    def source(self) -> str | None:
        """What annotation it stands for, if it does: a value of the label `keys.SOURCE`."""
        return None if self.is_calico else self.metadata.label(keys.SOURCE)


class _CalicoSpec(Struct, frozen=True, rename="camel"):
    """`spec` of a PacketCapture of projectcalico.org/v3: all that it can say."""

    selector: str = ""
    filters: tuple[FilterRule, ...] = ()
    start_time: datetime | None = None
    end_time: datetime | None = None


class _CalicoCapture(Struct, frozen=True, rename="camel"):
    metadata: ObjectMeta
    spec: _CalicoSpec = _CalicoSpec()
    status: dict[str, Any] | None = None


# Calico's own rotation: 10 MB or an hour, the current file and two rotated ones.
CALICO_ROTATION = RotationSpec(max_file_size=10_000_000, max_file_age="1h", max_files=3)
CALICO_LIMITS = LimitsSpec(max_size="100M", when_full="DropOldest")
"""A capture that never ends must not fill the store: a ring, ten of Calico's files a pod."""


def _from_calico(calico: _CalicoCapture, api_version: str) -> PacketCapture:
    """The same capture in our words, with what Calico's API leaves to the installation."""
    return PacketCapture(
        metadata=calico.metadata,
        spec=Spec(
            selector=calico.spec.selector,
            filters=calico.spec.filters,
            start_time=calico.spec.start_time,
            end_time=calico.spec.end_time,
            rotation=CALICO_ROTATION,
            limits=CALICO_LIMITS,
        ),
        status=calico.status,
        api_version=api_version,
    )


class BadCapture(ValueError):
    """A spec that is refused.

    Attributes:
        faults: One sentence each; all of them, so that a person mends all in one go.
    """

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class _Head(Struct, frozen=True, rename="camel"):
    api_version: str = ""


_HEAD = msgspec.json.Decoder(_Head)
_OURS = msgspec.json.Decoder(PacketCapture)
_CALICO = msgspec.json.Decoder(_CalicoCapture)


def parse_capture(raw: bytes | msgspec.Raw) -> PacketCapture:
    """Read a capture of either group as the API server sends it.

    Raises:
        BadCapture: a field is not of the kind that the schema asks for.
    """
    try:
        api_version = _HEAD.decode(raw).api_version
        if api_version.startswith(f"{keys.CALICO_GROUP}/"):
            return _from_calico(_CALICO.decode(raw), api_version)
        return _OURS.decode(raw)
    except msgspec.DecodeError as error:
        raise BadCapture((str(error),)) from error
