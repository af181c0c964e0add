from nightcap.kube.reviews import Identity
from retrieval.access import CaptureRef, Verb, question
from retrieval.files.people import People
from tests.unit.retrieval.asking import allow
from tests.unit.retrieval.fake_api import FakeApi


def test_yes_is_kept_for_ten_seconds_and_no_for_one(api: FakeApi) -> None:
    """Found on a newcomer's walk: the role was given, and for ten seconds it was still 403."""
    now = 100.0
    people = People(api.client, clock=lambda: now)
    asked = question(CaptureRef("storefront", "dns"), Verb.GET)
    reader = Identity("reader")
    assert not people.may(reader, asked)
    allow(api, "reader", "get")
    now = 100.9
    assert not people.may(reader, asked)
    now = 101.0
    assert people.may(reader, asked)
    api.allowed.clear()
    now = 110.9
    assert people.may(reader, asked)
    now = 111.0
    assert not people.may(reader, asked)
