"""Whether an optional group is there and ours, against a small real HTTP server."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from nightcap.contract.objects import ObjectMeta
from nightcap.kube import paths
from nightcap.kube.errors import ApiError, ClusterUnavailable
from nightcap.kube.groups import GroupProbe, GroupReflector, Standing, standing_of
from nightcap.kube.reflector import Change, Reflector
from tests.patience import eventually
from tests.unit.kube.small_api import SmallApi

GROUP = "projectcalico.org"
VERSION = paths.group_version(GROUP)
SERVICE = paths.api_service(GROUP)
LIST = paths.packetcaptures(group=GROUP)
CAPTURES = {"resources": [{"name": "packetcaptures"}, {"name": "packetcaptures/status"}]}
LOCAL: dict[str, Any] = {"spec": {"service": None}}
REMOTE = {"spec": {"service": {"name": "calico-api", "namespace": "calico-apiserver"}}}
DENIED = (403, {"code": 403, "reason": "Forbidden"})
ABSENT = (404, {"code": 404, "reason": "NotFound"})
DOWN = (500, {"code": 500})


def say(api: SmallApi, path: str, *answers: tuple[int, Any]) -> None:
    api.answers["GET", path] = list(answers)


def served(api: SmallApi) -> None:
    say(api, VERSION, (200, CAPTURES))
    say(api, SERVICE, (200, LOCAL))


@pytest.mark.parametrize(
    ("version", "service", "standing"),
    [
        pytest.param((200, CAPTURES), (200, LOCAL), "ours", id="a CRD and rights"),
        pytest.param((200, CAPTURES), (200, {"spec": {}}), "ours", id="spec without service"),
        pytest.param(ABSENT, (200, LOCAL), "absent", id="no group"),
        pytest.param(
            (200, {"resources": [{"name": "networkpolicies"}]}), (200, LOCAL), "absent",
            id="Calico's CRDs without captures",
        ),
        pytest.param((200, CAPTURES), (200, REMOTE), "aggregated", id="Calico's own API server"),
        pytest.param((200, CAPTURES), DENIED, "not granted", id="overlay not installed"),
        pytest.param((200, CAPTURES), ABSENT, "absent", id="it went meanwhile"),
    ],
)  # fmt: skip
def test_standing_of_a_group(
    api: SmallApi, version: tuple[int, Any], service: tuple[int, Any], standing: str
) -> None:
    say(api, VERSION, version)
    say(api, SERVICE, service)
    assert standing_of(api.client()) == standing


@pytest.mark.parametrize("path", [VERSION, SERVICE])
def test_api_server_that_fails_says_nothing(api: SmallApi, path: str) -> None:
    served(api)
    say(api, path, DOWN)
    with pytest.raises(ApiError):
        standing_of(api.client())
    probe = GroupProbe(api.client())
    probe.look()
    assert probe.standing is Standing.UNKNOWN


def test_yes_counts_at_once_and_no_when_it_was_said_twice(api: SmallApi) -> None:
    seen: list[Standing] = []
    probe = GroupProbe(api.client(), seen.append)
    say(api, VERSION, ABSENT)
    assert probe.look() < probe.look()  # the first answer is asked for again soon
    assert seen == [Standing.ABSENT]
    served(api)
    probe.look()
    assert seen[-1] is Standing.OURS
    # An API server that has just started may deny for a moment what it serves.
    say(api, VERSION, ABSENT)
    probe.look()
    served(api)
    probe.look()
    say(api, VERSION, ABSENT)
    probe.look()
    assert probe.is_ours
    probe.look()
    assert seen == [Standing.ABSENT, Standing.OURS, Standing.ABSENT]


def test_rights_that_vanish_are_not_captures_that_vanish(api: SmallApi) -> None:
    probe = GroupProbe(api.client())
    served(api)
    probe.look()
    say(api, SERVICE, DENIED)
    for _ in range(3):
        probe.look()
    assert probe.is_ours


def test_what_was_found_before_is_no_evidence_of_absence(api: SmallApi) -> None:
    """The collector once told a sidecar that its capture was deleted: the group had just come,
    the controller knew it, and the collector's look was six seconds old.
    """
    probe = GroupProbe(api.client())
    say(api, VERSION, ABSENT)
    with pytest.raises(ClusterUnavailable):
        probe.certain()
    probe.look()
    probe.look()
    assert probe.certain() is Standing.ABSENT
    served(api)
    assert probe.certain() is Standing.OURS
    probe.look()
    say(api, VERSION, ABSENT)
    with pytest.raises(ClusterUnavailable):
        probe.certain()
    say(api, VERSION, DOWN)
    with pytest.raises(ApiError):
        probe.certain()


class Thing(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()


@pytest.fixture
def changes() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def followed(api: SmallApi, changes: list[tuple[str, str]]) -> Iterator[GroupReflector[Thing]]:
    client = api.client()

    def tell(change: Change[Thing]) -> None:
        changes.append((change.kind, change.object.metadata.name))

    reflector = GroupReflector(
        client,
        lambda on_change: Reflector(
            client, LIST, msgspec.json.Decoder(Thing).decode, name="calico", on_change=on_change
        ),
        name="calico",
        on_change=tell,
        look_seconds=0.02,
        again_seconds=0.01,
    )
    yield reflector
    reflector.stop()


def test_group_that_is_installed_later_is_followed_and_forgotten_when_it_goes(
    api: SmallApi, followed: GroupReflector[Thing], changes: list[tuple[str, str]]
) -> None:
    say(api, VERSION, ABSENT)
    assert not followed.synced
    followed.start()
    eventually(lambda: followed.synced)
    assert followed.items() == ()
    api.put(f"{LIST}/dns")
    served(api)
    eventually(lambda: changes == [("added", "dns")])
    assert followed.synced
    assert followed.by_uid("uid-dns") is not None
    assert followed.lists == 1
    say(api, VERSION, ABSENT)
    eventually(lambda: changes[-1] == ("deleted", "dns"))
    assert (followed.items(), followed.by_uid("uid-dns"), followed.synced) == ((), None, True)
    assert followed.lists == 1
    served(api)
    eventually(lambda: changes[-1] == ("added", "dns"))
    assert followed.lists == 2


def test_group_of_somebody_else_is_never_listed(
    api: SmallApi, followed: GroupReflector[Thing]
) -> None:
    served(api)
    say(api, SERVICE, (200, REMOTE))
    followed.start()
    assert followed.probe.wait_known(5)
    eventually(lambda: sum(path == SERVICE for _, path, _, _ in api.requests) > 3)
    assert followed.synced
    assert LIST not in {path for _, path, _, _ in api.requests}


def test_nothing_is_known_while_the_api_server_is_silent(
    api: SmallApi, followed: GroupReflector[Thing]
) -> None:
    """To decide without these captures would take them from the orders."""
    say(api, VERSION, DOWN)
    followed.start()
    eventually(lambda: len(api.requests) > 3)
    assert not followed.synced
