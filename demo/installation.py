"""Installs Nightcap into a cluster, and removes it: what `make install` and `make uninstall` do.

The manifests are those of `kubectl apply -k manifests/base`; here only the names of the images
are filled in and, on a disposable cluster, a folder of one node as the store.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from demo.kubectl import Kubectl, KubectlError, wait_for

NAMESPACE = "nightcap-system"
BASE = Path(__file__).resolve().parent.parent / "manifests" / "base"
CALICO = BASE.parent / "calico"
OBJECT_STORE = BASE.parent / "object-store"
INJECTED = "nightcap.dev/injected"
CALICO_API_SERVICE = "v3.projectcalico.org"
CALICO_CRD = "packetcaptures.projectcalico.org"
GATEWAY = ("tigera-manager", "nightcap-gateway")
PROGRAMS = ("nightcap-controller", "nightcap-retrieval", "nightcap-webhook")
_REFUSED = 'admission webhook "packetcaptures.nightcap.dev" denied'
_BAD_CAPTURE = """
apiVersion: nightcap.dev/v1alpha1
kind: PacketCapture
metadata: {generateName: nightcap-install-, namespace: default}
spec: {filter: this is ( no filter}
"""

_LOCAL_STORE = """
apiVersion: v1
kind: PersistentVolume
metadata: {{name: nightcap-store}}
spec:
  capacity: {{storage: 20Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  claimRef: {{namespace: nightcap-system, name: nightcap-store}}
  local: {{path: {path}}}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]
"""


def render(
    kubectl: Kubectl,
    *,
    control_image: str,
    sidecar_image: str,
    local_store: bool,
    base: Path = BASE,
    calico: bool = False,
    object_store: Mapping[str, str] | None = None,
) -> str:
    """The manifests as text, with these images.

    Args:
        kubectl: Its kustomize renders.
        control_image: Image of webhook, controller and retrieval.
        sidecar_image: Image that is injected.
        local_store: Bind the store's claim to the volume of `local_store_volume`.
        base: The manifests: this release's, or an older one's.
        calico: Calico's API as well.
        object_store: Files in an object store in place of a volume: the settings that name it.
    """
    with tempfile.TemporaryDirectory(prefix="nightcap-overlay-") as folder:
        overlay = Path(folder)
        shutil.copy(base / "images-configuration.yaml", overlay)
        kustomization: dict[str, object] = {
            "resources": [os.path.relpath(base, overlay.resolve())],
            "images": [
                _image("nightcap/control", control_image),
                _image("nightcap/sidecar", sidecar_image),
            ],
            "configurations": ["images-configuration.yaml"],
        }
        components = [CALICO] if calico else []
        if object_store is not None:
            components.append(OBJECT_STORE)
            literals = [f"{name}={value}" for name, value in object_store.items()]
            kustomization["configMapGenerator"] = [
                {"name": "nightcap-store", "namespace": NAMESPACE, "literals": literals}
            ]
        kustomization["components"] = [os.path.relpath(c, overlay.resolve()) for c in components]
        if local_store and object_store is None:
            patch = [{"op": "add", "path": "/spec/storageClassName", "value": ""}]
            target = {"kind": "PersistentVolumeClaim", "name": "nightcap-store"}
            kustomization["patches"] = [{"target": target, "patch": json.dumps(patch)}]
        # JSON is YAML.
        (overlay / "kustomization.yaml").write_text(json.dumps(kustomization))
        return kubectl.run("kustomize", str(overlay))


def _image(name: str, reference: str) -> dict[str, str]:
    new_name, _, tag = reference.rpartition(":")
    if not new_name or "/" in tag:
        raise SystemExit(f"image {reference!r}: give it with its tag, such as {reference}:1.0")
    return {"name": name, "newName": new_name, "newTag": tag}


def local_store_volume(node: str, path: str) -> str:
    """A volume that is a folder of one node: for disposable clusters only."""
    return _LOCAL_STORE.format(node=node, path=path)


def install(
    kubectl: Kubectl, manifests: str, say: Callable[[str], None], timeout_seconds: float = 180
) -> None:
    """Apply manifests and wait until every program is ready and the webhook can be called.

    Raises:
        KubectlError: a program does not become ready.
    """
    has_calico = f"name: {CALICO_CRD}" in manifests
    if has_calico:
        refuse_foreign_calico(kubectl)
    kubectl.apply(manifests)
    for program in PROGRAMS:
        say(f"waiting for {program}")
        kubectl.rolled_out(NAMESPACE, program, timeout_seconds)
    if has_calico:
        say("waiting for the gateway in tigera-manager")
        kubectl.rolled_out(*GATEWAY, timeout_seconds)
    wait_for("the webhook's caBundle", lambda: _has_ca_bundle(kubectl), 60)
    # Ready pods are not yet known to the proxies of all nodes: until then the API server cannot
    # call the webhook, and pods would go without sidecar.
    wait_for("an answer of the webhook", lambda: is_webhook_called(kubectl), 60)


def refuse_foreign_calico(kubectl: Kubectl) -> None:
    """Stop before Calico's API is installed where somebody's API server answers for it."""
    found = kubectl.run(
        "get", "apiservice", CALICO_API_SERVICE, "--ignore-not-found",
        "-o", "jsonpath={.spec.service.namespace}/{.spec.service.name}",
    )  # fmt: skip
    if found not in ("", "/"):
        raise SystemExit(
            f"APIService {CALICO_API_SERVICE} is answered for by {found}: that is Calico's own API "
            "server; install without CALICO=1"
        )


def _has_ca_bundle(kubectl: Kubectl) -> bool:
    configuration = kubectl.json("get", "mutatingwebhookconfiguration", "nightcap")
    return all(entry["clientConfig"].get("caBundle") for entry in configuration["webhooks"])


def is_webhook_called(kubectl: Kubectl) -> bool:
    """Whether a filter is refused that only the webhook can know to be none."""
    try:
        kubectl.run("create", "--dry-run=server", "-f", "-", stdin=_BAD_CAPTURE)
    except KubectlError as error:
        if _REFUSED in str(error):
            return True
        raise
    return False


def uninstall(kubectl: Kubectl, manifests: str, say: Callable[[str], None]) -> None:
    """Remove everything, the webhooks first, so that nothing is called that is not there.

    The policies that guard orders stay while an injected pod lives: with nobody left who
    writes orders, nobody else may.
    """
    webhooks = ("mutatingwebhookconfiguration", "validatingwebhookconfiguration")
    for kind in webhooks:
        kubectl.delete(kind, "nightcap")
    injected = _injected_pods(kubectl)
    all_but_the_guard = ("-l", "nightcap.dev/remove!=last") if injected else ()
    kubectl.run(
        "delete", "--ignore-not-found", *all_but_the_guard, "-f", "-",
        stdin=manifests, timeout_seconds=300,
    )  # fmt: skip
    if injected:
        say(
            f"{len(injected)} injected pods still run (such as {injected[0]}); until they are "
            "replaced, the policies that guard orders stay. Then: kubectl delete "
            "validatingadmissionpolicy,validatingadmissionpolicybinding -l nightcap.dev/remove=last"
        )


def _injected_pods(kubectl: Kubectl) -> list[str]:
    pods = kubectl.json("get", "pods", "--all-namespaces")["items"]
    return [
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in pods
        if INJECTED in pod["metadata"].get("annotations", {})
    ]


def main() -> None:
    """`python -m demo.installation install|uninstall` with kubectl's own configuration."""
    kubectl = Kubectl(shutil.which("kubectl") or sys.exit("kubectl: not on PATH; install it"))
    manifests = render(
        kubectl,
        control_image=os.environ.get("CONTROL_IMAGE", "nightcap/control:0.1.0"),
        sidecar_image=os.environ.get("SIDECAR_IMAGE", "nightcap/sidecar:0.1.0"),
        local_store=False,
        calico=os.environ.get("CALICO") == "1",
    )
    match sys.argv[1:]:
        case ["install"]:
            install(kubectl, manifests, lambda line: print(line, file=sys.stderr))
        case ["uninstall"]:
            uninstall(kubectl, manifests, lambda line: print(line, file=sys.stderr))
        case _:
            sys.exit("usage: python -m demo.installation install|uninstall")


if __name__ == "__main__":
    main()
