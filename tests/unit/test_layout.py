"""What is said in two places is said alike: manifests, contract, policy, docs."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from nightcap import __version__
from nightcap.contract import keys, paths, uploads

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "manifests" / "base"
CALICO = ROOT / "manifests" / "calico"


def _objects(folder: Path = BASE) -> list[dict[str, object]]:
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [
        document for name in names for document in yaml.safe_load_all((folder / name).read_text())
    ]


def _object(kind: str, name: str, folder: Path = BASE) -> dict:
    objects = _objects(folder)
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)


# Records without decisions of their own, and what another module's test covers whole.
_WITHOUT_OWN_TEST = frozenset(
    {
        "nightcap.contract",
        "webhook.facts",
        "webhook.shape",
        "controller.actions",
        # Parts of a status: test_status looks at the whole.
        "controller.phase",
        "controller.tally",
        "controller.wording",
        "retrieval.collector.uploads",
    }
)


def test_every_decision_module_has_a_test_of_its_own() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    decisions = next(c for c in contracts["contracts"] if c["name"].startswith("Decision"))
    for module in set(decisions["source_modules"]) - _WITHOUT_OWN_TEST:
        package, *_, name = module.removeprefix("nightcap.").split(".")
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module
        tests = ROOT / "tests" / "unit" / package
        assert (tests / f"test_{name}.py").exists(), module


def test_crd_is_named_as_the_contract_says() -> None:
    crd = _object("CustomResourceDefinition", f"{keys.PLURAL}.{keys.GROUP}")
    assert crd["spec"]["names"]["kind"] == keys.KIND
    assert [v["name"] for v in crd["spec"]["versions"]] == [keys.VERSION]


def test_collector_has_one_number_for_service_and_container() -> None:
    service = _object("Service", "nightcap-collector")
    (port,) = service["spec"]["ports"]
    assert port["port"] == port["targetPort"] == uploads.COLLECTOR_PORT


def test_policy_guards_the_keys_that_the_programs_write() -> None:
    text = (BASE / "orders-policy.yaml").read_text()
    for key in (keys.ORDERS, keys.INJECTED):
        assert f"'{key}'" in text
    assert f"key: {keys.INJECT}, operator: NotIn, values: [{keys.INJECT_ENABLED}]" in text
    assert f"key: {keys.INJECT}, operator: In, values: [{keys.INJECT_DISABLED}]" in text
    account = "system:serviceaccount:nightcap-system:nightcap-controller"
    assert f"!= '{account}'" in text


def test_injection_is_opt_in_and_never_in_the_way() -> None:
    configuration = _object("MutatingWebhookConfiguration", "nightcap")
    for webhook in configuration["webhooks"]:
        assert webhook["failurePolicy"] == "Ignore"
        assert webhook["timeoutSeconds"] <= 3
        selected = {e["key"]: e for e in webhook["namespaceSelector"]["matchExpressions"]}
        assert selected[keys.INJECT]["values"] == [keys.INJECT_ENABLED]
        assert "nightcap-system" in selected["kubernetes.io/metadata.name"]["values"]
        (opt_out,) = webhook["objectSelector"]["matchExpressions"]
        assert (opt_out["key"], opt_out["operator"]) == (keys.INJECT, "NotIn")
        assert opt_out["values"] == [keys.INJECT_DISABLED]
        (rule,) = webhook["rules"]
        assert (rule["resources"], rule["operations"]) == (["pods"], ["CREATE"])
        assert webhook["reinvocationPolicy"] == "IfNeeded"


def test_every_webhook_fails_open_soon_and_leaves_no_trace_of_a_dry_run() -> None:
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        for webhook in _object(kind, "nightcap")["webhooks"]:
            assert webhook["failurePolicy"] == "Ignore"
            assert webhook["timeoutSeconds"] <= 3
            assert webhook["sideEffects"] == "None"
            assert webhook["admissionReviewVersions"] == ["v1"]
            # The controller's to fill in: a manifest that brings one would wipe it at each apply.
            assert "caBundle" not in webhook["clientConfig"]


def test_calicos_crd_is_named_as_the_contract_says() -> None:
    crd = _object("CustomResourceDefinition", f"{keys.PLURAL}.{keys.CALICO_GROUP}", CALICO)
    assert crd["spec"]["names"]["kind"] == keys.KIND
    assert "shortNames" not in crd["spec"]["names"]
    assert [v["name"] for v in crd["spec"]["versions"]] == [keys.CALICO_VERSION]


def test_both_groups_have_one_status() -> None:
    ours = _object("CustomResourceDefinition", f"{keys.PLURAL}.{keys.GROUP}")
    theirs = _object("CustomResourceDefinition", f"{keys.PLURAL}.{keys.CALICO_GROUP}", CALICO)
    first, second = (
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
        for crd in (ours, theirs)
    )
    assert first == second


def test_programs_may_not_write_calicos_captures_but_their_status() -> None:
    writes = {
        (resource, verb)
        for role in _objects(CALICO)
        if role["kind"] == "ClusterRole"
        for rule in role["rules"]  # type: ignore[attr-defined]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb not in ("get", "list", "watch")
    }
    assert writes == {("packetcaptures/status", "patch")}


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("nightcap-webhook", BASE),
        ("nightcap-controller", BASE),
        ("nightcap-retrieval", BASE),
        ("nightcap-gateway", CALICO),
    ],
)
def test_workloads_meet_the_restricted_level(name: str, folder: Path) -> None:
    """What the namespace's own label enforces on a cluster, seen before there is one."""
    spec = _object("Deployment", name, folder)["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["image"] == f"nightcap/control:{__version__}"


def test_controller_may_not_patch_pods() -> None:
    rules = _object("ClusterRole", "nightcap-controller")["rules"]
    verbs = {
        verb for rule in rules if "pods" in rule.get("resources", []) for verb in rule["verbs"]
    }
    assert verbs == {"get", "list", "watch"}


def test_dormant_program_looks_where_the_webhook_mounts() -> None:
    source = (ROOT / "sidecar" / "dormant.c").read_text()
    for place in (paths.ORDERS_DIR, paths.SPOOL_DIR, paths.OPEN_MARKER):
        assert f'"{place}"' in source or place in source


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"], ids=str)
def test_pages_name_files_that_exist(page: Path) -> None:
    named = re.findall(
        r"`((?:nightcap|webhook|controller|retrieval|sidecar|certs|manifests|docs|tests|demo|bench)"
        r"/[\w./-]+)`",
        page.read_text(),
    )
    for name in named:
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_wheel_holds_the_library_and_nothing_else(tmp_path: Path) -> None:
    """Names like `certs` or `sidecar` must not land in other people's site-packages."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    top = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert top == {"nightcap", f"nightcap-{__version__}.dist-info"}
