from typing import Any

from controller.actions import Ref
from controller.misfits import KINDS, not_understood
from controller.settings import Settings
from controller.view import Memory
from controller.watches import make_watches
from controller.world import World
from nightcap.contract.objects import ObjectMeta
from nightcap.kube.client import KubeClient


def test_an_object_that_cannot_be_read_says_so_itself_and_what_holds():
    metadata = ObjectMeta(
        name="night", namespace="nightcap-system", uid="u-1", resource_version="7"
    )
    event = not_understood("captureceilings", metadata, "maxDuration: 'soon' is no duration")
    assert event.regarding == Ref(
        kind="CaptureCeiling",
        namespace="nightcap-system",
        name="night",
        uid="u-1",
        api_version="nightcap.dev/v1alpha1",
        resource_version="7",
    )
    assert (event.type, event.reason) == ("Warning", "NotUnderstood")
    assert "'soon' is no duration" in event.message
    assert "last read" in event.message


def test_of_every_watch_the_kind_is_known():
    client: Any = object.__new__(KubeClient)  # nothing is asked before a watch is started
    world: Any = World(book=object(), memory=Memory(), mark=lambda _: None)  # type: ignore[arg-type]
    watches = make_watches(client, Settings.from_environ({}), world)
    assert {watch.name for watch in watches.all} == set(KINDS)
