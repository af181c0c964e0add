"""New pods that match a running capture: the application's very first packets are in the file."""

import re
from collections.abc import Iterator

from bench.cluster import namespace
from bench.effort import Effort
from bench.result import Result, say
from demo.evidence import CaptureFile, index_of_first_query, index_of_syn
from demo.files import Retrieval, reach_retrieval
from demo.kubectl import wait_for
from tests.e2e.shop import Shop

NAME = "packet-zero"
_PODS = 20
_AT_ONCE = 5


def run(effort: Effort) -> Iterator[Result]:
    """Each pod asks DNS for `catalog` and then connects: the first of both must be there."""
    pods = effort.of(_PODS, 4)
    with namespace("bench-packet-zero") as shop, reach_retrieval(shop.stage.kubectl) as retrieval:
        shop.start(shop.pod("catalog"))
        shop.run("expose", "pod", "catalog", "--port=8080")
        shop.create(
            shop.capture(
                "newborns",
                selector={"matchLabels": {"app": "frontend"}},
                filter="udp port 53 or tcp port 8080",
            )
        )
        wait_for("the capture to run", lambda: shop.status("newborns").get("phase"), 30)
        token = shop.person("analyst", "nightcap-files")
        kept = 0
        names = [f"frontend-{number}" for number in range(pods)]
        for begin in range(0, pods, _AT_ONCE):
            some = names[begin : begin + _AT_ONCE]
            shop.start(*(_frontend(shop, name) for name in some))
            for name in some:
                kept += _is_kept(shop, retrieval, token, name)
    yield Result(
        name=NAME,
        ours=kept,
        unit=f"of {pods} pods",
        goal=f"{pods} of {pods}",
        met=kept == pods,
        runs=pods,
    )


def _frontend(shop: Shop, name: str) -> dict[str, object]:
    app = {
        "name": "app",
        "image": shop.stage.images.app,
        "args": ["frontend", "http://catalog:8080", "1"],
    }
    return shop.pod(name, labels={"app": "frontend"}, containers=[app])


def _is_kept(shop: Shop, retrieval: Retrieval, token: str, name: str) -> bool:
    port = wait_for("the first request", lambda: _first_port(shop, name), 60)

    def packets() -> CaptureFile | None:
        for file in shop.files(retrieval, "newborns", token):
            if file.pod == name and index_of_syn(file.packets, port) is not None:
                return file
        return None

    file = wait_for(f"the first request of {name} in its file", packets, 30, 0.5)
    query = index_of_first_query(file.packets, "catalog")
    syn = index_of_syn(file.packets, port)
    # The resolver asks for IPv4 first: were its first packet missing, a file could not begin so.
    first = query == 0 and file.packets[0]["DNS"].qd[0].qtype == 1
    kept = first and syn is not None
    say(f"{NAME}: {name}: query is packet {query}, first SYN packet {syn}: {kept}")
    return kept


def _first_port(shop: Shop, name: str) -> int | None:
    """Local port of the application's first request, by its own log."""
    match = re.search(r"^n=1 port=(\d+)", shop.run("logs", name, "-c", "app"), re.MULTILINE)
    return int(match[1]) if match else None
