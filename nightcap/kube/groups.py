"""API groups that may or may not be here: whether one is served, and by whom.

`projectcalico.org` is installed by an overlay, perhaps long after our programs, and on some
clusters it belongs to somebody else. `GroupProbe` looks again and again; a
`GroupReflector` follows its objects as long as they are ours to follow.
"""

import logging
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, Generic

import msgspec

from nightcap.contract import keys
from nightcap.kube import paths
from nightcap.kube.client import KubeClient
from nightcap.kube.errors import ApiError, ClusterUnavailable, Forbidden, NotFound
from nightcap.kube.reflector import Change, Malformed, Reflector, T

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 15.0
"""How long until a group that was installed is noticed."""
AGAIN_SECONDS: Final = 1.0
"""How long until an answer is confirmed, or asked for again when there was none."""


class Standing(StrEnum):
    """What a group is to us."""

    UNKNOWN = "unknown"
    """The API server has not said yet."""
    OURS = "ours"
    """It is served from a CRD, and we were given rights to it."""
    ABSENT = "absent"
    """The API server serves no such resource."""
    AGGREGATED = "aggregated"
    """Somebody's own API server answers for it; nothing is watched or written there."""
    NOT_GRANTED = "not granted"
    """It is served, and our overlay is not installed: somebody else's."""


_SENTENCES: Final = {
    Standing.OURS: "group is served; its captures are followed",
    Standing.ABSENT: "group is not served; it is looked for again",
    Standing.AGGREGATED: "group belongs to an aggregated API server; it is left alone",
    Standing.NOT_GRANTED: "group is served without rights for us; it is left alone",
}


class _Resource(msgspec.Struct, frozen=True):
    name: str = ""


class _ResourceList(msgspec.Struct, frozen=True):
    resources: tuple[_Resource, ...] = ()


class _ApiServiceSpec(msgspec.Struct, frozen=True):
    service: dict[str, Any] | None = None


class _ApiService(msgspec.Struct, frozen=True):
    spec: _ApiServiceSpec = _ApiServiceSpec()


def standing_of(client: KubeClient, group: str = keys.CALICO_GROUP) -> Standing:
    """Ask the API server once.

    The right to look at the group's APIService comes with the overlay: who may not, was not
    asked to follow the group.

    Raises:
        ApiError: the API server cannot be asked.
    """
    try:
        listed = client.request("GET", paths.group_version(group), timeout=(5, 10))
    except NotFound:
        return Standing.ABSENT
    resources = msgspec.json.decode(listed, type=_ResourceList).resources
    if keys.PLURAL not in {resource.name for resource in resources}:
        return Standing.ABSENT
    try:
        found = client.request("GET", paths.api_service(group), timeout=(5, 10))
    except Forbidden:
        return Standing.NOT_GRANTED
    except NotFound:
        return Standing.ABSENT  # it went between the two questions
    service = msgspec.json.decode(found, type=_ApiService).spec.service
    return Standing.OURS if service is None else Standing.AGGREGATED


class GroupProbe:
    """Looks what a group is to us, in a thread of its own.

    An answer counts when it was given twice in a row, but for `OURS`: an API server that
    has just started may deny for a moment what it serves and what was granted.

    Args:
        client: The API server.
        on_change: Called in the thread with each new standing.
        group: The group.
        look_seconds: Time between looks.
        again_seconds: Time until an answer is confirmed.
    """

    def __init__(
        self,
        client: KubeClient,
        on_change: Callable[[Standing], None] = lambda _: None,
        *,
        group: str = keys.CALICO_GROUP,
        look_seconds: float = LOOK_SECONDS,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        self.group = group
        self._client = client
        self._on_change = on_change
        self._look_seconds = look_seconds
        self._again_seconds = again_seconds
        self._standing = Standing.UNKNOWN
        self._candidate: Standing | None = None
        self._known = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def standing(self) -> Standing:
        return self._standing

    @property
    def is_ours(self) -> bool:
        return self._standing is Standing.OURS

    def certain(self) -> Standing:
        """What the group is at this moment, asked for now and as it was found before.

        For whoever concludes from its absence that something was deleted: what was found up
        to 15 s ago is no evidence, and neither is one answer of a server that has just started.

        Raises:
            ApiError: the API server cannot be asked, or says something new; ask again.
        """
        seen = standing_of(self._client, self.group)
        if seen is not Standing.OURS and seen is not self._standing:
            raise ClusterUnavailable(
                0, "GroupUncertain", f"{self.group} was {self._standing}, and is {seen} now"
            )
        return seen

    def wait_known(self, timeout: float) -> bool:
        """Wait for the first answer that counts."""
        return self._known.wait(timeout)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"probe-{self.group}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def look(self) -> float:
        """Ask once and draw the conclusion.

        Returns:
            Seconds until the next look.
        """
        try:
            seen = standing_of(self._client, self.group)
        except (ApiError, msgspec.DecodeError) as error:
            log.info("group not looked at", extra={"group": self.group, "error": str(error)})
            self._candidate = None
            return self._again_seconds if self._standing is Standing.UNKNOWN else self._look_seconds
        if seen is self._standing or (self.is_ours and seen is Standing.NOT_GRANTED):
            # Rights that vanish are not captures that vanish.
            self._candidate = None
            return self._look_seconds
        if seen is not Standing.OURS and seen is not self._candidate:
            self._candidate = seen
            return self._again_seconds
        self._candidate, self._standing = None, seen
        log.info(_SENTENCES[seen], extra={"group": self.group, "standing": str(seen)})
        self._on_change(seen)
        self._known.set()
        return self._look_seconds

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                pause = self.look()
            except Exception:
                log.exception("look at group failed", extra={"group": self.group})
                pause = self._look_seconds
            self._stopping.wait(pause)


class GroupReflector(Generic[T]):
    """A reflector that runs while its group is ours.

    When the group goes, what was there is told as deleted: the API server deletes the objects
    of a CRD before it stops to serve them.

    Args:
        client: The API server.
        make: A reflector that was not started, given the function to tell changes to.
        name: For logs and metrics.
        on_change: As a reflector's.
        group: The group.
        look_seconds: Time between looks at the group.
        again_seconds: Time until an answer is confirmed.
    """

    def __init__(
        self,
        client: KubeClient,
        make: Callable[[Callable[[Change[T]], None]], Reflector[T]],
        *,
        name: str,
        on_change: Callable[[Change[T]], None] = lambda _: None,
        group: str = keys.CALICO_GROUP,
        look_seconds: float = LOOK_SECONDS,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        self.name = name
        self._make = make
        self._on_change = on_change
        self._reflector: Reflector[T] | None = None
        self._counted = {"lists": 0, "watches": 0, "failures": 0}
        self.probe = GroupProbe(
            client,
            self._on_standing,
            group=group,
            look_seconds=look_seconds,
            again_seconds=again_seconds,
        )

    def start(self) -> None:
        self.probe.start()

    def stop(self) -> None:
        self.probe.stop()
        reflector = self._reflector
        if reflector is not None:
            reflector.stop()

    @property
    def synced(self) -> bool:
        """Whether it is known what there is: nothing, or a complete list."""
        standing, reflector = self.probe.standing, self._reflector
        if standing in (Standing.UNKNOWN, Standing.OURS):
            return reflector is not None and reflector.synced
        return True

    def items(self) -> tuple[T, ...]:
        reflector = self._reflector
        return () if reflector is None else reflector.items()

    def by_uid(self, uid: str) -> T | None:
        reflector = self._reflector
        return None if reflector is None else reflector.by_uid(uid)

    @property
    def malformed(self) -> tuple[Malformed, ...]:
        """As a reflector's."""
        reflector = self._reflector
        return () if reflector is None else reflector.malformed

    @property
    def lists(self) -> int:
        return self._count("lists")

    @property
    def watches(self) -> int:
        return self._count("watches")

    @property
    def failures(self) -> int:
        return self._count("failures")

    def _count(self, what: str) -> int:
        reflector = self._reflector
        return self._counted[what] + (0 if reflector is None else getattr(reflector, what))

    def _on_standing(self, standing: Standing) -> None:
        old = self._reflector
        if standing is Standing.OURS:
            self._reflector = self._make(self._on_change)
            self._reflector.start()
        elif old is not None:
            old.stop()
            self._counted = {what: self._count(what) for what in self._counted}
            self._reflector = None
            for item in old.items():
                self._on_change(Change("deleted", item, item))
