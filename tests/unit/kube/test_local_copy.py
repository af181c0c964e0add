from dataclasses import dataclass

from nightcap.contract.objects import ObjectMeta
from nightcap.kube.local_copy import LocalCopy, Malformed


@dataclass(frozen=True)
class Thing:
    metadata: ObjectMeta


def a_thing(name: str, uid: str = "", version: str = "1") -> Thing:
    uid = uid or f"uid-{name}"
    return Thing(ObjectMeta(name=name, namespace="ns", uid=uid, resource_version=version))


def misfit(name: str, uid: str = "") -> Malformed:
    return Malformed(a_thing(name, uid, "9").metadata, "it is odd")


def kinds(changes):
    return [(change.kind, change.object.metadata.uid) for change in changes]


def test_a_new_list_is_told_as_differences_and_deletions_first():
    copy: LocalCopy[Thing] = LocalCopy()
    assert kinds(copy.replace([a_thing("a"), a_thing("b")], ())) == [
        ("added", "uid-a"),
        ("added", "uid-b"),
    ]
    changes = copy.replace([a_thing("b", version="2"), a_thing("c")], ())
    assert kinds(changes) == [("deleted", "uid-a"), ("modified", "uid-b"), ("added", "uid-c")]
    assert copy.replace([a_thing("c"), a_thing("b", version="2")], ()) == []


def test_what_was_made_again_under_its_name_was_deleted_before():
    copy: LocalCopy[Thing] = LocalCopy()
    copy.put(a_thing("a"))
    assert kinds(copy.put(a_thing("a", "other"))) == [("deleted", "uid-a"), ("added", "other")]
    assert copy.by_uid("uid-a") is None
    assert copy.by_uid("other") == copy.get("ns", "a")


def test_of_a_state_that_cannot_be_read_the_last_good_one_stays():
    copy: LocalCopy[Thing] = LocalCopy()
    copy.put(a_thing("a"))
    assert copy.put_malformed(misfit("a")) == ()
    assert copy.replace([], [misfit("a")]) == []
    assert copy.get("ns", "a") == a_thing("a")
    assert copy.malformed() == (misfit("a"),)
    assert kinds(copy.put(a_thing("a", version="3"))) == [("modified", "uid-a")]
    assert copy.malformed() == ()


def test_the_last_good_state_of_another_object_does_not_stay():
    """A ceiling that was deleted and made again, and cannot be read, is not the old one."""
    for tell in (
        lambda copy: copy.put_malformed(misfit("a", "other")),
        lambda copy: copy.replace([], [misfit("a", "other")]),
    ):
        copy: LocalCopy[Thing] = LocalCopy()
        copy.put(a_thing("a"))
        assert kinds(tell(copy)) == [("deleted", "uid-a")]
        assert copy.items() == ()
        assert copy.malformed() == (misfit("a", "other"),)


def test_what_never_could_be_read_goes_without_a_word():
    copy: LocalCopy[Thing] = LocalCopy()
    assert copy.put_malformed(misfit("a")) == ()
    assert copy.remove(misfit("a"), None) == ()
    assert copy.malformed() == ()
