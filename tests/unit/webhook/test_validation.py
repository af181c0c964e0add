import json

import pytest

from nightcap.contract import keys
from nightcap.contract.ceilings import Ceiling
from tests.unit.webhook.builders import NOW, a_capture, a_review, resolved
from webhook.review import read_request
from webhook.validation import annotation_faults, capture_faults, ceiling_faults

GOOD = {"selector": {"matchLabels": {"app": "logging"}}, "filter": "udp port 53"}


class Compiler:
    """libpcap's place: refuses what holds `bad`, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, expression):
        self.asked.append(expression)
        return "syntax error" if "and and" in expression else None


def a_capture_object(spec, **meta):
    return {
        "apiVersion": "nightcap.dev/v1alpha1",
        "kind": "PacketCapture",
        "metadata": {"name": "dns", "namespace": "storefront", **meta},
        "spec": spec,
    }


def faults(new, old=None, *, operation=None, compiler=None, **meta):
    review = a_review(
        "packetcaptures",
        operation or ("CREATE" if old is None else "UPDATE"),
        group=keys.GROUP,
        object=a_capture_object(new, **meta),
        oldObject=None if old is None else a_capture_object(old),
    )
    return capture_faults(read_request(json.dumps(review).encode()), compiler or Compiler())


def test_a_good_capture_has_no_faults_and_its_filter_was_compiled():
    compiler = Compiler()
    assert faults(GOOD, compiler=compiler) == ()
    assert compiler.asked == ["udp port 53"]


def test_a_filter_that_does_not_compile_is_refused_in_libpcaps_own_words():
    assert faults({"filter": "tcp and and udp"}) == ("filter 'tcp and and udp': syntax error",)


def test_every_fault_is_told_at_once():
    found = faults({"duration": "-1s", "interfaces": ["a/b"], "filter": "host example.com"})
    assert len(found) == 3
    for word in ("duration", "interfaces", "example.com"):
        assert sum(word in fault for fault in found) == 1


def test_a_spec_with_other_faults_is_not_compiled():
    compiler = Compiler()
    assert len(faults({"duration": "soon", "filter": "udp"}, compiler=compiler)) == 1
    assert compiler.asked == []


def test_a_field_of_the_wrong_kind_is_a_fault():
    (fault,) = faults({"suspend": "yes"})
    assert "suspend" in fault


BAD = {"filter": "tcp and and udp", "duration": "soon"}


@pytest.mark.parametrize(
    ("new", "old", "meta"),
    [
        ({**BAD, "suspend": True}, BAD, {}),
        ({**BAD, "suspend": False}, {**BAD, "suspend": True}, {}),
        (BAD, BAD, {"finalizers": ["x"], "labels": {"a": "b"}}),
        ({**BAD, "filter": "("}, BAD, {"deletionTimestamp": "2026-11-22T02:00:00Z"}),
        ({"suspend": True, "snapLength": "x"}, {"snapLength": "x"}, {}),
    ],
    ids=["suspend", "resume", "metadata", "deletion", "suspend-of-what-does-not-decode"],
)
def test_nobody_is_kept_from_stopping_a_capture_that_should_not_be_there(new, old, meta):
    compiler = Compiler()
    assert faults(new, old, compiler=compiler, **meta) == ()
    assert compiler.asked == []


def test_deleting_is_never_refused():
    assert faults(BAD, BAD, operation="DELETE") == ()


def test_an_update_answers_for_what_it_brings_in_alone():
    old = {**GOOD, "duration": "soon"}
    assert faults({**old, "endTime": "2026-11-22T02:00:00Z"}, old) != ()  # both are given now
    assert faults({**old, "snapLength": 96}, old) == ()
    (fault,) = faults({**old, "snapLength": 0}, old)
    assert "snapLength" in fault


def test_an_update_that_leaves_the_filter_compiles_nothing():
    compiler = Compiler()
    assert faults({**GOOD, "duration": "5m"}, GOOD, compiler=compiler) == ()
    assert compiler.asked == []
    assert faults({**GOOD, "filter": "tcp"}, GOOD, compiler=compiler) == ()
    assert compiler.asked == ["tcp"]


def annotated(annotations, old=None, check_filter=None):
    review = a_review(
        operation="CREATE" if old is None else "UPDATE",
        object={"metadata": {"annotations": annotations}, "spec": {}},
        oldObject=None if old is None else {"metadata": {"annotations": old}},
    )
    return annotation_faults(read_request(json.dumps(review).encode()), check_filter)


def test_annotations_that_mean_something_give_no_warning():
    assert annotated({keys.CAPTURE: "on", keys.DURATION: "5m", "team": "x"}) == ()
    assert annotated(None) == ()


def test_annotations_that_mean_nothing_are_told():
    (fault,) = annotated({keys.CAPTURE: "yes"})
    assert keys.CAPTURE in fault


def test_options_are_judged_before_they_are_switched_on():
    (fault,) = annotated({keys.DURATION: "soon"})
    assert keys.DURATION in fault
    assert annotated({keys.DURATION: "soon", keys.CAPTURE: "off"}) == ()


def test_annotations_that_did_not_change_are_not_told_again():
    bad = {keys.CAPTURE: "yes"}
    assert annotated({**bad, "team": "new"}, {**bad, "team": "old"}) == ()
    assert annotated(bad, {}) != ()


def test_an_annotated_filter_is_compiled_where_there_is_time():
    wanted = {keys.CAPTURE: "on", keys.FILTER: "tcp and and udp"}
    assert annotated(wanted) == ()
    assert annotated(wanted, check_filter=Compiler()) == (f"{keys.FILTER}: syntax error",)


def beyond(new, old=None, *, running=(), **ceiling):
    review = a_review(
        "packetcaptures",
        "CREATE" if old is None else "UPDATE",
        group=keys.GROUP,
        object=a_capture_object(new),
        oldObject=None if old is None else a_capture_object(old),
    )
    limit = Ceiling(("tight",), **ceiling)
    others = tuple(resolved(a_capture(name, uid=name)) for name in running)
    return ceiling_faults(read_request(json.dumps(review).encode()), limit, others, NOW)


def test_a_capture_beyond_the_ceiling_is_refused_with_the_rules_name():
    (said,) = beyond({"duration": "2h"}, max_seconds=3600)
    assert said.startswith("maxDuration: ")
    assert beyond({"duration": "1h"}, max_seconds=3600) == ()


def test_one_capture_too_many_is_refused_whatever_its_age():
    (said,) = beyond(GOOD, running=("a", "b"), max_captures=2)
    assert said.startswith("maxCaptures: ")
    assert beyond(GOOD, running=("a",), max_captures=2) == ()
    assert len(beyond(GOOD, max_captures=0)) == 1


def test_a_suspended_capture_takes_no_place_and_resuming_it_does():
    asleep = {**GOOD, "suspend": True}
    assert beyond(asleep, running=("a", "b"), max_captures=2) == ()
    assert len(beyond(GOOD, asleep, running=("a", "b"), max_captures=2)) == 1
    assert len(beyond({"duration": "2h"}, {"duration": "2h", "suspend": True}, max_seconds=60)) == 1


def test_nobody_is_kept_from_stopping_or_changing_what_ran_before_the_ceiling_came():
    long = {"duration": "2h"}
    assert beyond({**long, "suspend": True}, long, max_seconds=60) == ()
    assert beyond({**long, "snapLength": 64}, long, max_seconds=60, max_captures=0) == ()
    assert len(beyond({**long, "interfaces": ["lo"]}, long, interfaces=frozenset({"eth0"}))) == 1
