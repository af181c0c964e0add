"""Who may have which files: by token, right, method and path."""

import pytest

from tests.unit.retrieval.asking import BASE, DELETIONS, DOWNLOADS, NAME, OURS, Files, put
from tests.unit.retrieval.builders import (
    a_capture,
    a_pcap,
)


def everything() -> list[tuple[str, str]]:
    reads = [f"{BASE}/files", f"{BASE}/files/{NAME}", *DOWNLOADS]
    return [("GET", path) for path in reads] + [("DELETE", path) for path in DELETIONS]


@pytest.mark.parametrize(("method", "path"), everything())
@pytest.mark.parametrize("exists", [True, False], ids=["exists", "does not exist"])
def test_without_a_right_nobody_learns_whether_a_capture_exists(
    files: Files, method: str, path: str, exists: bool
) -> None:
    put(files, a_pcap())
    files.api.captures = [a_capture()] if exists else []
    for token in ("", "stranger", "sidecar"):
        answer = files.ask(path, method=method, who=token)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for token in ("capturer", "elsewhere", "reader" if method == "DELETE" else "owner"):
        answer = files.ask(path, method=method, who=token)
        verb = method.lower()
        assert answer.status_code == 403
        group = "nightcap.dev" if path in OURS else "projectcalico.org or nightcap.dev"
        assert answer.text == (
            f"{token} is not authorized to {verb} packetcaptures/files of {group} "
            "named dns in namespace storefront\n"
        )
    assert not any("packetcaptures/dns" in path for path in files.api.asked)
    assert files.audit == []


@pytest.mark.parametrize(("method", "path"), everything())
def test_with_the_right_a_capture_that_is_not_there_is_not_found(
    files: Files, method: str, path: str
) -> None:
    files.api.captures = []
    token = "owner" if method == "DELETE" else "reader"
    answer = files.ask(path, method=method, who=token)
    assert (answer.status_code, "no capture dns" in answer.text) == (404, True)


def test_the_service_proxys_header_counts_as_well(files: Files) -> None:
    headers = {"Nightcap_Authorization": "Bearer reader"}
    assert files.ask(f"{BASE}/files", who="", **headers).status_code == 200
    headers = {"Nightcap_Authorization": "Bearer capturer", "Authorization": "Bearer reader"}
    assert files.ask(f"{BASE}/files", **headers).status_code == 403


@pytest.mark.parametrize("header", ["", "reader", "Basic cmVhZGVy", "Bearer", "Bearer a b"])
def test_what_is_no_bearer_token_is_nobody(files: Files, header: str) -> None:
    assert files.ask(f"{BASE}/files", who="", Authorization=header).status_code == 401


def test_a_path_that_leads_nowhere_is_told_to_people_only(files: Files) -> None:
    for path in ("/", "/v1", "/v1//namespaces", f"{BASE}/files/", "/metrics", "/static/x"):
        assert files.ask(path, who="").status_code == 401
        assert files.ask(path).status_code == 404
    assert files.ask(f"{BASE}/files", method="POST").status_code == 405


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "PUT", "PATCH", "TRACE"])
def test_other_methods_have_no_answer(files: Files, method: str) -> None:
    for path in (*OURS, *DOWNLOADS):
        assert files.ask(path, method=method).status_code == 405
        assert files.ask(path, method=method, who="").status_code == 401


def test_while_the_api_is_down_nobody_gets_anything(files: Files) -> None:
    put(files, a_pcap())
    files.api.is_down = True
    answer = files.ask(f"{BASE}/files")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


def test_a_yes_is_remembered_for_seconds_but_not_whether_the_object_lives(files: Files) -> None:
    put(files, a_pcap())
    assert files.ask(f"{BASE}/files").status_code == 200
    reviews = [path for path in files.api.asked if path.endswith("reviews")]
    assert files.ask(f"{BASE}/files").status_code == 200
    assert [path for path in files.api.asked if path.endswith("reviews")] == reviews
    files.api.captures = []
    assert files.ask(f"{BASE}/files").status_code == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param(f"{BASE}/files/../../../../../etc/passwd", 404, id="dots in the path"),
        pytest.param(f"{BASE}/files/..%2f..%2fetc%2fpasswd", 404, id="encoded slashes"),
        pytest.param(f"{BASE}/files/..", 400, id="dots as file"),
        pytest.param(f"{BASE}/files/%2e%2e", 400, id="encoded dots as file"),
        pytest.param(f"{BASE}/files/meta.json", 400, id="a file of the store"),
        pytest.param(f"{BASE}/files/00000001.pcap", 400, id="the store's own name"),
        pytest.param(f"{BASE}/files/.{NAME}", 400, id="hidden"),
        pytest.param(f"{BASE}/files/{NAME}%00.txt", 400, id="zero byte"),
        pytest.param(f"{BASE}/files/{NAME}%0a", 400, id="line feed"),
        pytest.param(f"{BASE}/files/a_..-1.pcap", 400, id="dots as interface"),
        pytest.param(f"{BASE}/files/web-0_eth0-1.pcap", 404, id="another file"),
        pytest.param(f"{BASE}/files/{'a' * 5000}", 400, id="very long"),
        pytest.param("/v1/namespaces/../packetcaptures/dns/files", 400, id="dots as namespace"),
        pytest.param("/v1/namespaces/UP/packetcaptures/dns/files", 400, id="upper case"),
        pytest.param("/v1/namespaces/storefront/packetcaptures/%2e%2e/files", 400, id="dots"),
        pytest.param("/v1/namespaces/storefront/packetcaptures/a%20b/files", 400, id="blank"),
        pytest.param("/download/storefront/..%2f..%2fdns/files.zip", 404, id="Calico's, slashes"),
        pytest.param("/download/storefront/d%00ns/files.zip", 400, id="Calico's, zero byte"),
    ],
)
def test_a_made_up_path_gets_a_sentence_and_no_file(files: Files, path: str, status: int) -> None:
    put(files, a_pcap())
    answer = files.ask(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert files.audit == []


def test_health_needs_no_token(files: Files) -> None:
    assert files.ask("/healthz", who="").status_code == 200
    assert files.ask("/health", who="").status_code == 200  # Calico's
    assert files.ask("/readyz", who="").status_code == 200
