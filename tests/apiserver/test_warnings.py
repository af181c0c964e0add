"""Whoever types a bad annotation is told by the tool they typed it into."""

import json
from collections.abc import Callable

import pytest

from tests.apiserver.private import Installation, PrivateApi
from tests.apiserver.test_resources import a_pod


def asked(installation: Installation, name: str) -> int:
    return sum(d["path"] == "/warn" and d["object"] == name for d in installation.decisions())


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        ("nightcap.dev/capture=yes", "nightcap.dev/capture"),
        ("nightcap.dev/duration=soon", "nightcap.dev/duration"),
        ("nightcap.dev/filter=port port", "syntax error"),  # libpcap's own words
    ],
)
def test_a_bad_annotation_of_a_namespace_is_a_warning(
    api: PrivateApi, namespace: Callable[..., str], annotation: str, said: str
) -> None:
    name = namespace()
    done = api.kubectl("annotate", "namespace", name, annotation)
    assert done.returncode == 0
    assert "Warning: nightcap: " in done.stderr
    assert said in done.stderr


def test_a_namespace_that_is_made_with_a_bad_annotation_is_made_with_a_warning(
    api: PrivateApi, installation: Installation
) -> None:
    meta = {"name": "made-wrong", "annotations": {"nightcap.dev/capture": "maybe"}}
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}
    done = api.kubectl("create", "-f", "-", stdin=json.dumps(document))
    assert done.returncode == 0
    assert "Warning: nightcap: nightcap.dev/capture" in done.stderr


def test_a_bad_annotation_of_a_pod_is_a_warning(
    api: PrivateApi, namespace: Callable[..., str]
) -> None:
    name = namespace()
    pod = api.create_pod(name, a_pod(), dry_run=False)["metadata"]["name"]
    done = api.kubectl("-n", name, "annotate", "pod", pod, "nightcap.dev/filter=port port")
    assert done.returncode == 0
    assert "syntax error" in done.stderr


def test_nobody_is_asked_about_changes_that_are_not_ours(
    api: PrivateApi, namespace: Callable[..., str], installation: Installation
) -> None:
    name = namespace()
    pod = api.create_pod(name, a_pod(), dry_run=False)["metadata"]["name"]
    for subject in (("namespace", name), ("-n", name, "pod", pod)):
        done = api.kubectl("annotate", *subject, "nightcap.dev/capture=on")
        assert (done.returncode, done.stderr) == (0, "")
    before = (asked(installation, name), asked(installation, pod))
    assert before == (1, 1)
    for subject in (("namespace", name), ("-n", name, "pod", pod)):
        assert api.kubectl("annotate", *subject, "example.com/note=x").returncode == 0
        assert api.kubectl("label", *subject, "example.com/note=x").returncode == 0
    assert (asked(installation, name), asked(installation, pod)) == before
