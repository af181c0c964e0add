"""The alert on failing open reads what the API server counts; here it counts for real."""

import re
import subprocess

from nightcap.kube import paths
from tests import prometheus
from tests.apiserver.conftest import Opening
from tests.apiserver.private import Installation, PrivateApi, free_port

SERIES = "apiserver_admission_webhook_fail_open_count"


def _metrics(api: PrivateApi) -> str:
    said: subprocess.CompletedProcess[str] = api.kubectl("get", "--raw", "/metrics")
    assert said.returncode == 0, said.stderr
    return said.stdout


def test_the_api_server_counts_pods_that_pass_while_the_webhook_is_away(
    api: PrivateApi, installation: Installation, namespace: Opening
) -> None:
    (rule,) = (rule for rule in prometheus.rules() if SERIES in rule["expr"])
    (wanted,) = re.findall(r'name=~"([^"]+)"', rule["expr"])
    name = namespace(test="away")
    # Beside the installation, so that other tests keep theirs: an entry of its own that calls
    # where nobody listens.
    (configuration,) = (d for d in installation.webhooks() if d["kind"].startswith("Mutating"))
    entry = next(e for e in configuration["webhooks"] if e["name"].startswith("privileged."))
    entry["clientConfig"]["url"] = f"https://127.0.0.1:{free_port()}/mutate/privileged"
    entry["namespaceSelector"] = {"matchLabels": {"test": "away"}}
    configuration |= {"metadata": {"name": "nightcap-away"}, "webhooks": [entry]}
    api.apply(configuration)
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    try:
        for _ in range(200):
            api.create_pod(name, pod)
            shown = prometheus.exposed([_metrics(api)])
            if shown.get(SERIES):
                break
    finally:
        api.client.request("DELETE", f"{paths.mutating_webhook('nightcap-away')}")
    assert "name" in shown[SERIES]
    counted = re.findall(rf'^{SERIES}{{.*name="([^"]+)".*}} [1-9]', _metrics(api), re.MULTILINE)
    assert counted
    assert all(re.fullmatch(wanted, each) for each in counted)


def test_the_alert_covers_every_webhook_of_ours(installation: Installation) -> None:
    (rule,) = (rule for rule in prometheus.rules() if SERIES in rule["expr"])
    (wanted,) = re.findall(r'name=~"([^"]+)"', rule["expr"])
    for configuration in installation.documents("webhook-configuration.yaml"):
        for entry in configuration["webhooks"]:
            assert re.fullmatch(wanted, entry["name"])
