import msgspec
import pytest

from controller.view import UnreadableCapture, decode_capture, judge
from tests.unit.controller.builders import NOW, a_capture


def raw(**spec):
    status = {"phase": "Error"}
    metadata = {"name": "dns", "namespace": "shop", "uid": "ab", "generation": 3}
    return msgspec.Raw(msgspec.json.encode({"metadata": metadata, "spec": spec, "status": status}))


def test_a_good_capture_is_judged_with_its_settings():
    judged = judge(a_capture(duration="5m"))
    assert judged.faults == ()
    assert judged.settings is not None
    assert judged.is_running(NOW)


def test_a_bad_spec_is_judged_with_all_its_faults():
    judged = judge(a_capture(duration="x", snapLength=0))
    assert judged.settings is None
    assert len(judged.faults) == 2
    assert not judged.is_running(NOW)


@pytest.mark.parametrize("spec", [{"snapLength": "many"}, {"podNames": 3}, {"startTime": "now"}])
def test_a_capture_that_cannot_be_read_exists_all_the_same_with_its_fault(spec):
    """Overlooking it would take its entries from the orders, and the pods' spools with them."""
    capture = decode_capture(raw(**spec))
    assert isinstance(capture, UnreadableCapture)
    assert (capture.metadata.name, capture.metadata.generation) == ("dns", 3)
    assert capture.status == {"phase": "Error"}
    (fault,) = judge(capture).faults
    assert next(iter(spec)) in fault


def test_what_is_no_object_of_the_api_at_all_is_left_to_the_watch():
    with pytest.raises(msgspec.DecodeError):
        decode_capture(msgspec.Raw(b'{"metadata": 5}'))


def test_a_capture_held_by_a_finalizer_does_not_run():
    assert not judge(a_capture(deleted=NOW)).is_running(NOW)


def test_a_capture_of_calicos_group_that_cannot_be_read_is_of_that_group_still():
    bad = {
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "dns"},
        "spec": {"selector": 5},
    }
    capture = decode_capture(msgspec.Raw(msgspec.json.encode(bad)))
    assert isinstance(capture, UnreadableCapture)
    assert capture.group == "projectcalico.org"
