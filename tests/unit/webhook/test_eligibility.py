import pytest

from nightcap.contract import keys
from tests.unit.webhook.builders import (
    NAMESPACE,
    SIZES,
    TEMPLATE,
    a_container,
    a_pod,
    apply,
    look,
)
from webhook.eligibility import SENTENCES, Inject, Keep, Skip, SkipReason, decide
from webhook.facts import NamespaceFacts
from webhook.injection import inject
from webhook.resources import sidecar_resources
from webhook.shape import Level, Profile

ENABLED = NamespaceFacts(NAMESPACE, enabled=True)


def decision_on(pod, namespace=ENABLED, level=Level.PRIVILEGED):
    return decide(look(pod), namespace, level, own_namespace="nightcap-system")


def labelled(value):
    return a_pod(meta={"labels": {keys.INJECT: value}})


def needing_nodes(*terms):
    return a_pod(
        affinity={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": list(term)} for term in terms]
                }
            }
        }
    )


WINDOWS_NODES = {"key": "kubernetes.io/os", "operator": "In", "values": ["windows"]}
LINUX_NODES = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
MIRROR = a_pod(meta={"annotations": {"kubernetes.io/config.mirror": "7c2d"}})

SKIPPED = [
    ("mirror-pod", MIRROR, ENABLED, Level.PRIVILEGED),
    (
        "own-namespace",
        a_pod(),
        NamespaceFacts("nightcap-system", enabled=True),
        Level.PRIVILEGED,
    ),
    ("system-namespace", a_pod(), NamespaceFacts("kube-system", enabled=True), Level.PRIVILEGED),
    (
        "namespace-not-enabled",
        a_pod(),
        NamespaceFacts(NAMESPACE, enabled=False),
        Level.PRIVILEGED,
    ),
    ("opted-out", labelled("disabled"), ENABLED, Level.PRIVILEGED),
    ("unknown-opt-out", labelled("off"), ENABLED, Level.PRIVILEGED),
    ("host-network", a_pod(hostNetwork=True), ENABLED, Level.PRIVILEGED),
    ("windows", a_pod(os={"name": "windows"}), ENABLED, Level.PRIVILEGED),
    ("namespace-restricted", a_pod(), ENABLED, Level.RESTRICTED),
    (
        "name-taken",
        a_pod(containers=[a_container("nightcap")]),
        ENABLED,
        Level.PRIVILEGED,
    ),
]


@pytest.mark.parametrize(
    ("reason", "pod", "namespace", "level"), SKIPPED, ids=[row[0] for row in SKIPPED]
)
def test_each_row_of_the_table_skips_with_its_reason(reason, pod, namespace, level):
    decision = decision_on(pod, namespace, level)
    assert isinstance(decision, Skip)
    assert decision.reason == reason


def test_the_first_row_that_holds_decides():
    pod = a_pod(
        meta={"annotations": {"kubernetes.io/config.mirror": "7c2d"}, "labels": {}},
        hostNetwork=True,
    )
    decision = decision_on(pod, NamespaceFacts("kube-system", enabled=False), Level.RESTRICTED)
    assert decision == Skip(SkipReason.MIRROR_POD)


def test_an_ordinary_pod_is_injected_with_the_profile_of_its_namespaces_level():
    assert decision_on(a_pod()) == Inject(Profile.STRICT)
    assert decision_on(a_pod(), level=Level.BASELINE) == Inject(Profile.BASELINE)


@pytest.mark.parametrize(
    "pod",
    [
        a_pod(hostNetwork=False),
        labelled("enabled"),
        a_pod(os={"name": "linux"}),
        a_pod(nodeSelector={"kubernetes.io/os": "linux"}),
        a_pod(securityContext={"windowsOptions": {}}),
        a_pod(securityContext={"windowsOptions": {"hostProcess": False}}),
        needing_nodes([LINUX_NODES]),
        needing_nodes([WINDOWS_NODES], [LINUX_NODES]),
        a_pod(affinity={"nodeAffinity": {}}),
        {"spec": {"containers": [a_container()]}},
        {"metadata": None, "spec": {"containers": [a_container()], "volumes": None}},
    ],
    ids=[
        "hostNetwork-false", "label-enabled", "linux", "linux-nodes", "empty-windowsOptions",
        "false-windowsOptions", "linux-affinity", "either-affinity", "no-affinity",
        "no-metadata", "nulls",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_reason_is_none(pod):
    assert decision_on(pod) == Inject(Profile.STRICT)


def test_a_namespace_the_watch_has_not_told_of_yet_counts_as_enabled():
    """The API server selects by the label and has asked: it knows the namespace better."""
    assert decision_on(a_pod(), NamespaceFacts("born-just-now")) == Inject(Profile.STRICT)


@pytest.mark.parametrize(
    "pod",
    [
        a_pod(nodeSelector={"kubernetes.io/os": "windows"}),
        a_pod(nodeSelector={"beta.kubernetes.io/os": "windows"}),
        a_pod(securityContext={"windowsOptions": {"hostProcess": True}}),
        a_pod(securityContext={"windowsOptions": {"runAsUserName": "ContainerUser"}}),
        a_pod(containers=[a_container(securityContext={"windowsOptions": {"hostProcess": True}})]),
        needing_nodes([WINDOWS_NODES]),
    ],
    ids=["selector", "beta-selector", "pod-hostProcess", "user-name", "hostProcess", "affinity"],
)
def test_every_way_to_say_windows_is_understood(pod):
    assert decision_on(pod) == Skip(SkipReason.WINDOWS)


@pytest.mark.parametrize(
    ("pod", "detail"),
    [
        (a_pod(initContainers=[a_container("nightcap")]), "container nightcap"),
        (a_pod(volumes=[{"name": "nightcap-spool", "emptyDir": {}}]), "volume nightcap-spool"),
        (
            a_pod(
                containers=[
                    a_container(volumeMounts=[{"name": "nightcap-token", "mountPath": "/t"}])
                ]
            ),
            "volume nightcap-token",
        ),
        (
            a_pod(
                containers=[
                    a_container(volumeDevices=[{"name": "nightcap-orders", "devicePath": "/d"}])
                ]
            ),
            "volume nightcap-orders",
        ),
    ],
    ids=["init-container", "volume", "mount-in-advance", "device-in-advance"],
)
def test_a_pod_that_mentions_our_names_is_not_injected_and_told_which(pod, detail):
    assert decision_on(pod) == Skip(SkipReason.NAME_TAKEN, detail)


def injected(pod):
    view = look(pod)
    resources = sidecar_resources(view, SIZES, ENABLED)
    return apply(pod, inject(view, TEMPLATE, Profile.STRICT, resources, ""))


def test_an_injected_pod_is_kept():
    assert decision_on(injected(a_pod(initContainers=[a_container("migrate")]))) == Keep(0)


def test_an_injected_pod_is_kept_after_others_have_worked_on_it():
    """Mirrors rewrite images, observability adds environment, meshes go first in line."""
    pod = injected(a_pod())
    sidecar = pod["spec"]["initContainers"][0]
    sidecar["image"] = f"mirror.local/{sidecar['image']}"
    sidecar["env"].append({"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "x"}}})
    sidecar["volumeMounts"].append({"name": "agent", "mountPath": "/agent"})
    sidecar["resources"]["limits"] = {"memory": "512Mi"}
    sidecar["securityContext"]["procMount"] = "Default"
    sidecar["securityContext"]["capabilities"]["drop"] = ["ALL", "SYS_ADMIN"]
    del sidecar["restartPolicy"]
    pod["spec"]["initContainers"].insert(0, a_container("mesh-init"))
    assert decision_on(pod) == Keep(1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pod: pod["spec"]["initContainers"][0].pop("securityContext"),
        lambda pod: pod["spec"]["initContainers"][0]["securityContext"].update(privileged=True),
        lambda pod: pod["spec"]["initContainers"][0]["securityContext"]["capabilities"].update(
            add=["NET_RAW", "SYS_ADMIN"]
        ),
        lambda pod: pod["spec"]["initContainers"][0]["securityContext"].update(capabilities=7),
        lambda pod: pod["spec"]["initContainers"][0]["volumeMounts"].pop(),
        lambda pod: pod["spec"]["volumes"].pop(),
        lambda pod: pod["spec"]["volumes"][0].update(downwardAPI=None, configMap={"name": "x"}),
        lambda pod: pod["spec"]["containers"][0].update(
            volumeMounts=[{"name": "nightcap-spool", "mountPath": "/spool"}]
        ),
        lambda pod: pod["spec"]["containers"].append(pod["spec"]["initContainers"].pop()),
    ],
    ids=[
        "no-security-context", "privileged", "more-capabilities", "no-capabilities",
        "mount-gone", "volume-gone", "forged-orders-volume",
        "application-mounts-spool", "not-an-init-container",
    ],
)  # fmt: skip
def test_what_only_resembles_our_sidecar_is_a_name_taken(spoil):
    pod = injected(a_pod())
    spoil(pod)
    decision = decision_on(pod)
    assert isinstance(decision, Skip)
    assert decision.reason == SkipReason.NAME_TAKEN


def test_every_reason_is_told_but_those_that_somebody_asked_for():
    asked_for = {
        SkipReason.NOT_A_POD_CREATION, SkipReason.OPTED_OUT, SkipReason.ALREADY_INJECTED,
    }  # fmt: skip
    assert set(SENTENCES) == set(SkipReason) - asked_for
