"""The policy that guards orders, on a pod that lives: tests/apiserver has every path there is."""

import json

import pytest

from demo.kubectl import wait_for
from nightcap.kube.errors import Forbidden
from tests.e2e.shop import CONTROLLER, ORDERS, Shop

BEYOND_EDIT = "pods,pods/status,pods/resize,pods/ephemeralcontainers"
FORGED = '{"v":1,"collectors":[],"captures":[]}'


def test_an_editor_may_do_to_a_pod_what_editors_do_and_not_write_its_orders(shop: Shop) -> None:
    shop.run("create", "serviceaccount", "editor")
    user = f"system:serviceaccount:{shop.name}:editor"
    shop.run("create", "role", "more", "--verb=*", f"--resource={BEYOND_EDIT}")
    shop.run("create", "rolebinding", "edit", "--clusterrole=edit", f"--user={user}")
    shop.run("create", "rolebinding", "more", "--role=more", f"--user={user}")
    pod = shop.pod("web")
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "10m"}}
    shop.start(pod)

    said = shop.refused("annotate", "pod", "web", f"{ORDERS}={FORGED}", user=user)
    assert "alone" in said
    assert shop.orders("web") is None

    shop.run("annotate", "pod", "web", "example.com/note=fine", user=user)
    more = {"name": "app", "resources": {"requests": {"cpu": "20m"}}}
    bigger = json.dumps({"spec": {"containers": [more]}})
    shop.run("patch", "pod", "web", "--subresource=resize", "-p", bigger, user=user)
    image = shop.stage.images.app
    debugger = ("--image", image, "-c", "debugger", "--image-pull-policy=IfNotPresent")
    shop.run("debug", "web", *debugger, "--profile=general", "--", "sleep", "600", user=user)

    def is_all_done() -> bool:
        status = shop.get("pod", "web")["status"]
        resources = status["containerStatuses"][0].get("resources", {})
        debuggers = status.get("ephemeralContainerStatuses", [])
        return resources.get("requests", {}).get("cpu") == "20m" and any(
            "running" in each["state"] for each in debuggers
        )

    wait_for("the debugger and the other size", is_all_done, 60)
    assert shop.annotations("web")["example.com/note"] == "fine"

    shop.patch_status("web", {"example.com/by": "controller"}, user=CONTROLLER)
    assert shop.annotations("web")["example.com/by"] == "controller"
    with pytest.raises(Forbidden):
        shop.patch_pod("web", {"spec": {"activeDeadlineSeconds": 600}}, user=CONTROLLER)
