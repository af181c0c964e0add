from hypothesis import given, settings
from hypothesis import strategies as st

from controller.index import CaptureIndex
from controller.view import judge
from nightcap.contract.assignment import selects
from tests.unit.controller.histories import captures, pods


@settings(max_examples=60, deadline=None)
@given(st.lists(captures(), max_size=3), pods())
def test_the_index_names_every_capture_that_selects_a_pod(made, pod):
    index = CaptureIndex()
    for capture in made:
        index.put(judge(capture))
    latest = {capture.metadata.uid: capture for capture in made}
    named = [judged.uid for judged in index.candidates(pod.metadata)]
    assert len(named) == len(set(named))
    for uid, capture in latest.items():
        if selects(capture, pod.metadata):
            assert uid in named
    for uid in latest:
        index.remove(uid)
    assert list(index.candidates(pod.metadata)) == []
