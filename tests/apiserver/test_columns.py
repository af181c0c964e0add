"""What `kubectl get` shows of a capture by itself."""

from nightcap.contract import keys
from nightcap.kube import paths
from nightcap.kube.client import MERGE_PATCH
from tests.apiserver.controllers import install
from tests.apiserver.private import PrivateApi


def test_a_captures_row_answers_the_first_questions(api: PrivateApi) -> None:
    install(api)
    shop = api.namespace("columns")
    capture = {
        "apiVersion": keys.API_VERSIONS[keys.GROUP], "kind": keys.KIND,
        "metadata": {"name": "dns"}, "spec": {},
    }  # fmt: skip
    api.client.request("POST", paths.packetcaptures(shop), body=capture)
    status = {
        "phase": "Capturing", "pods": {"matching": 3, "capturing": 2}, "packets": 12000,
        "dropped": 7, "size": 1048576,
    }  # fmt: skip
    api.client.request(
        "PATCH", paths.packetcapture_status(shop, "dns"),
        body={"status": status}, content_type=MERGE_PATCH,
    )  # fmt: skip
    shown = api.kubectl("-n", shop, "get", f"packetcaptures.{keys.GROUP}")
    head, row = (line.split() for line in shown.stdout.splitlines())
    assert head == [
        "NAME", "PHASE", "CAPTURING", "MATCHING", "PACKETS", "DROPPED", "SIZE", "AGE",
    ]  # fmt: skip
    assert row[:-1] == ["dns", "Capturing", "2", "3", "12000", "7", "1048576"]
