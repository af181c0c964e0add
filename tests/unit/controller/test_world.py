from msgspec import structs

from controller.reports import ReportBook
from controller.view import Memory, Refusal, RetrievalView
from controller.world import World, collectors_of
from nightcap.contract import keys
from nightcap.contract.objects import ConfigMap, ObjectMeta, Service, ServiceSpec
from nightcap.kube.reflector import Change
from tests.unit.controller.builders import (
    NOW,
    a_capture,
    a_namespace,
    a_pod,
    a_report,
    uid_of,
    with_orders,
)


class Marks(list):
    def take(self):
        taken = list(self)
        self.clear()
        return taken


def a_world():
    marks = Marks()
    return World(ReportBook(), Memory(), marks.append), marks


def a_service(*addresses):
    spec = ServiceSpec(cluster_ip=addresses[0] if addresses else "", cluster_ips=addresses)
    return Service(metadata=ObjectMeta(name="nightcap-collector"), spec=spec)


def test_each_change_marks_its_own_namespace_and_the_view_holds_that_namespace_alone():
    world, marks = a_world()
    world.on_namespace(Change("added", a_namespace(name="shop")))
    world.on_pod(Change("added", a_pod(namespace="shop")))
    world.on_pod(Change("added", a_pod("other", namespace="bank")))
    world.on_capture(Change("added", a_capture(namespace="bank")))
    assert marks.take() == ["shop", "shop", "bank", "bank"]
    view = world.view("shop")
    assert [pod.metadata.name for pod in view.pods] == ["web-1"]
    assert view.captures == ()
    assert view.namespace is not None
    assert world.view("bank").namespace is None


def test_what_is_deleted_is_in_no_view():
    world, _ = a_world()
    pod, capture, namespace = a_pod(), a_capture(), a_namespace()
    world.on_pod(Change("added", pod))
    world.on_capture(Change("added", capture))
    world.on_namespace(Change("added", namespace))
    world.on_pod(Change("deleted", pod, pod))
    world.on_capture(Change("deleted", capture, capture))
    world.on_namespace(Change("deleted", namespace, namespace))
    view = world.view("shop")
    assert (view.pods, view.captures, view.namespace) == ((), (), None)


def test_with_a_capture_goes_all_that_was_remembered_of_it():
    world, _ = a_world()
    capture = a_capture()
    uid = capture.metadata.uid
    world.on_capture(Change("added", capture))
    world.book.put([a_report()])
    world.memory.status_written_at[uid] = NOW
    world.memory.ordered_at[uid, "p"] = NOW
    world.memory.ordered_at["other", "p"] = NOW
    world.memory.refusals["shop", "dns"] = Refusal("f", "no", NOW)
    world.on_capture(Change("deleted", capture, capture))
    assert world.book.of(uid) == {}
    assert world.memory == Memory(ordered_at={("other", "p"): NOW})


def test_a_heartbeat_of_the_kubelet_is_no_news():
    world, marks = a_world()
    pod = a_pod()
    world.on_pod(Change("added", pod))
    marks.clear()
    metadata = structs.replace(pod.metadata, resource_version="2")
    beat = structs.replace(pod, metadata=metadata)
    world.on_pod(Change("modified", beat, pod))
    assert marks.take() == []
    assert world.view("shop").pods == (beat,)
    labelled = a_pod(labels={"app": "web"})
    world.on_pod(Change("modified", labelled, beat))
    assert marks.take() == ["shop"]


def test_orders_that_somebody_else_wrote_are_news():
    world, marks = a_world()
    pod = a_pod()
    world.on_pod(Change("modified", with_orders(pod, "{}"), pod))
    assert marks.take() == ["shop"]


def test_the_collectors_addresses_reach_every_namespace_once():
    world, marks = a_world()
    world.on_pod(Change("added", a_pod(namespace="shop")))
    world.on_pod(Change("added", a_pod(namespace="bank")))
    marks.clear()
    world.on_service(Change("added", a_service("10.96.0.9", "fd00::9")))
    assert sorted(marks.take()) == ["bank", "shop"]
    assert world.view("shop").collectors == (("10.96.0.9", 20443), ("fd00::9", 20443))
    world.on_service(Change("modified", a_service("10.96.0.9", "fd00::9")))
    assert marks.take() == []
    world.on_service(Change("deleted", a_service("10.96.0.9", "fd00::9")))
    assert world.view("shop").collectors == ()


def test_a_service_without_an_address_has_no_collectors():
    assert collectors_of(a_service("None")) == ()
    assert collectors_of(a_service()) == ()


def test_how_the_collectors_answer_is_news_only_when_it_changes():
    world, marks = a_world()
    world.on_capture(Change("added", a_capture()))
    assert world.view("shop").retrieval.asked is False
    marks.clear()
    world.on_retrieval(RetrievalView())
    world.on_retrieval(RetrievalView())
    assert marks.take() == ["shop"]
    assert world.view("shop").retrieval.asked is True


def test_a_view_has_the_reports_of_its_captures():
    world, _ = a_world()
    world.on_capture(Change("added", a_capture()))
    world.book.put([a_report(), a_report("http")])
    reports = world.view("shop").reports
    assert list(reports[uid_of("dns")]) == [uid_of("web-1")]
    world.book.put([a_report(seq=2, packets=99)])
    assert reports[uid_of("dns")][uid_of("web-1")].report.packets == 10  # of one moment


def test_tidying_forgets_what_is_remembered_of_the_gone_and_keeps_the_rest():
    world, _ = a_world()
    world.on_capture(Change("added", a_capture()))
    world.on_pod(Change("added", a_pod()))
    world.book.put([a_report(), a_report(pod="gone"), a_report("lost")])
    here = (uid_of("dns"), uid_of("web-1"))
    for key in (here, (uid_of("dns"), "gone"), ("lost", uid_of("web-1"))):
        world.memory.ordered_at[key] = NOW
    world.tidy()
    world.tidy()
    assert set(world.memory.ordered_at) == {here}
    # Of a pod that is gone the report stays: its packets count as long as the capture lives.
    assert len(world.book.of(uid_of("dns"))) == 2
    assert world.book.of(uid_of("lost")) == {}


def test_a_capture_is_judged_when_it_comes():
    world, _ = a_world()
    world.on_capture(Change("added", a_capture(duration="never")))
    (judged,) = world.captures()
    assert judged.settings is None
    assert "'never'" in judged.faults[0]
    assert world.view("shop").captures[0].capture.metadata.label(keys.SOURCE) is None


def test_a_switch_marks_every_namespace_once_and_the_views_say_why():
    world, marks = a_world()
    world.on_namespace(Change("added", a_namespace(name="shop")))
    world.on_namespace(Change("added", a_namespace(name="bank")))
    marks.take()
    off = ConfigMap(data={"injection": "off", "reason": "5 pods wait"})
    world.on_switch(Change("added", off))
    assert sorted(marks.take()) == ["bank", "shop"]
    assert world.view("shop").injection_off == "5 pods wait"
    world.on_switch(Change("modified", off, off))
    assert marks.take() == []
    world.on_switch(Change("deleted", off, off))
    assert sorted(marks.take()) == ["bank", "shop"]
    assert world.view("bank").injection_off == ""
