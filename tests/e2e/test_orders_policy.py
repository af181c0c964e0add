"""Nobody but the controller changes orders, on any way that can change a pod's metadata."""

import json

import pytest

from nightcap.kube.errors import Forbidden
from tests.e2e.shop import CONTROLLER, ORDERS, Shop

FORGED = '{"v":1,"collectors":[],"captures":[]}'


@pytest.fixture
def editor(shop: Shop) -> str:
    """Somebody with the role `edit` and the right to patch pods/status and bind pods."""
    shop.run("create", "serviceaccount", "editor")
    user = f"system:serviceaccount:{shop.name}:editor"
    shop.run("create", "role", "more", "--verb=*", "--resource=pods,pods/status,pods/binding")
    shop.run("create", "rolebinding", "edit", "--clusterrole=edit", f"--user={user}")
    shop.run("create", "rolebinding", "more", "--role=more", f"--user={user}")
    shop.start(shop.pod("web"))
    return user


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("annotate", "pod", "web", f"{ORDERS}={FORGED}"), id="annotate"),
        pytest.param(
            (
                "patch", "pod", "web", "--type=merge",
                "-p", json.dumps({"metadata": {"annotations": {ORDERS: FORGED}}}),
            ),
            id="patch",
        ),
        pytest.param(
            (
                "patch", "pod", "web", "--subresource=status", "--type=merge",
                "-p", json.dumps({"metadata": {"annotations": {ORDERS: FORGED}}}),
            ),
            id="patch of the status",
        ),
        pytest.param(
            ("annotate", "pod", "web", "nightcap.dev/injected=x", "--overwrite"), id="injected"
        ),
    ],
)  # fmt: skip
def test_orders_cannot_be_changed_by_an_editor(
    shop: Shop, editor: str, arguments: tuple[str, ...]
) -> None:
    said = shop.refused(*arguments, user=editor)
    assert "alone" in said
    assert shop.orders("web") is None


def test_orders_cannot_be_applied_server_side(shop: Shop, editor: str) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "annotations": {ORDERS: FORGED}},
    }
    said = shop.refused(
        "apply", "--server-side", "-f", "-", stdin=json.dumps(manifest), user=editor
    )
    assert "alone" in said


def test_orders_cannot_come_in_through_a_binding(shop: Shop, editor: str) -> None:
    shop.create(shop.pod("waiting", schedulerName="nobody"))
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "waiting", "namespace": shop.name, "annotations": {ORDERS: FORGED}},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "no-such-node"},
    }
    said = shop.refused(
        "create", "--raw", f"/api/v1/namespaces/{shop.name}/pods/waiting/binding", "-f", "-",
        stdin=json.dumps(binding), user=editor,
    )  # fmt: skip
    assert "remove it" in said


def test_orders_may_not_be_brought_into_a_namespace_that_is_not_enabled(shop: Shop) -> None:
    shop.run("label", "namespace", shop.name, "nightcap.dev/inject-")
    pod = shop.pod("web", annotations={ORDERS: FORGED})
    assert "remove it" in shop.refused("create", "-f", "-", stdin=json.dumps(pod))


def test_other_annotations_and_the_kubelet_are_not_in_the_way(shop: Shop, editor: str) -> None:
    shop.run("annotate", "pod", "web", "example.com/note=fine", user=editor)
    assert shop.annotations("web")["example.com/note"] == "fine"


def test_controller_can_change_orders_and_no_image(shop: Shop) -> None:
    shop.start(shop.pod("web"))
    shop.patch_status("web", {"example.com/by": "controller"}, user=CONTROLLER)
    assert shop.annotations("web")["example.com/by"] == "controller"
    with pytest.raises(Forbidden):
        shop.patch_pod("web", {"spec": {"activeDeadlineSeconds": 600}}, user=CONTROLLER)
