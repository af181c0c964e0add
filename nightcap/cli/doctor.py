"""`doctor`: looks at an installation with the caller's rights, and says what to do."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import click

from nightcap.cli import checks
from nightcap.cli import output as _out
from nightcap.cli.ground import (
    Looker,
    examine_egress,
    examine_ground,
    examine_labels,
    examine_pinned,
    examine_schema,
)
from nightcap.cli.options import cluster_options, output_option, session_of
from nightcap.cli.patience import patiently, until_well
from nightcap.cli.rescue import examine as examine_injection
from nightcap.cli.rescue import rescue
from nightcap.cli.rights import examine_rights
from nightcap.cli.session import SYSTEM, Fault, Session
from nightcap.cli.words import Line, Mark

_DEPLOYMENTS: Final = ("nightcap-controller", "nightcap-webhook", "nightcap-retrieval")
_SERVICES: Final = ("nightcap-webhook", "nightcap-collector", "nightcap-retrieval")
_MOST_NAMESPACES: Final = 50
_BAD_FILTER: Final = "this is ( no filter"
_ENFORCE: Final = "pod-security.kubernetes.io/enforce"


@click.command()
@click.option(
    "--rescue", "frees", is_flag=True,
    help="Free pods that wait for the sidecar's container: give them another image of it.",
)  # fmt: skip
@click.option(
    "--image", metavar="REF",
    help="With --rescue: that image; default: the one that the webhook injects now.",
)  # fmt: skip
@click.option(
    "--delete", is_flag=True,
    help="With --rescue: delete pods that no image helps and that a controller makes anew.",
)  # fmt: skip
@click.option(
    "--wait", "patience", metavar="TIME",
    help="Look again and again until nothing is a fault, at most so long, such as 1m.",
)  # fmt: skip
@output_option("json", "yaml")
@cluster_options
@click.pass_context
def doctor(
    context: click.Context,
    frees: bool,
    image: str | None,
    delete: bool,
    patience: str | None,
    output: str | None,
) -> int:
    r"""Check the installation and your own rights; each line says what to do.

    Exit code 1 when there is a fault. Nothing is written without --rescue: what has to be
    tried is tried as a dry run.

    \b
    kubectl nightcap doctor
    kubectl nightcap doctor --wait 1m
    kubectl nightcap doctor --rescue
    """
    if (image or delete) and not frees:
        raise click.UsageError("--image and --delete say how --rescue frees pods; give it, too")
    if patience and frees:
        raise click.UsageError("--wait looks until all is well, --rescue mends: give one of them")
    session = session_of(context)
    said = []
    if frees:
        lines = rescue(session, image, delete=delete)
    else:
        lines = _looking(session, patience)
    for line in lines:
        said.append(line)
        if output is None:
            click.echo(_out.line(line))
    if output is not None:
        found = [{"mark": str(s.mark), "text": s.text, "advice": s.advice} for s in said]
        click.echo(_out.dump(found, output))
    return 1 if any(line.mark is Mark.FAULT for line in said) else 0


def _looking(session: Session, patience: str | None) -> Iterator[Line]:
    from nightcap.contract.quantities import BadQuantity, parse_duration

    def look() -> Iterator[Line]:
        return patiently(session, examine(session, time.time()))

    if patience is None:
        return look()
    try:
        return until_well(look, parse_duration(patience))
    except BadQuantity as error:
        raise Fault(str(error)) from error


def examine(session: Session, now: float) -> Iterator[Line]:
    """Everything that can be said, as it is found out."""
    from nightcap.contract import keys
    from nightcap.kube import paths

    look = Looker(session)
    yield checks.check_version(session.get(paths.VERSION))
    crd = checks.check_crd(look.get(paths.group_version(keys.GROUP)))
    yield crd
    for name in _DEPLOYMENTS:
        found = look.get(paths.deployment(SYSTEM, name))
        hidden = look.hidden
        what = f"deployment {name}"
        yield look.unknown(what) if hidden else checks.check_deployment(name, found)
    for name in _SERVICES:
        yield _service(session, look, name)
    yield from examine_ground(look, now)
    yield from _certificates(look, now)
    yield from _policies(look)
    if crd.mark is Mark.OK:
        yield examine_schema(session)
        yield _refusal(session)
    yield _retrieval(session)
    yield from examine_injection(session)
    yield from examine_labels(look)
    yield from _namespaces(session)
    yield from examine_rights(session)


def _policies(look: Looker) -> Iterator[Line]:
    from nightcap.kube import paths

    for ours in checks.POLICIES:
        policy = look.get(paths.validating_policy(ours.name))
        hidden = look.hidden
        binding = look.get(paths.validating_policy_binding(ours.binding))
        look.hidden = hidden or look.hidden
        if look.hidden:
            yield look.unknown(f"admission policy {ours.name}")
        elif ours is checks.CANARY_POLICY and policy is None and not _canary_has_rights(look):
            yield checks.no_canary()
        else:
            yield checks.check_policy(ours, policy, binding)


def _canary_has_rights(look: Looker) -> bool:
    """Whether the account may create pods, as far as may be seen; who cannot see it, assumes so."""
    from nightcap.contract.canary import CANARY_ACCOUNT
    from nightcap.kube import paths

    return look.get(paths.cluster_role_binding(CANARY_ACCOUNT)) is not None or bool(look.hidden)


def _service(session: Session, look: Looker, name: str) -> Line:
    from nightcap.kube import paths
    from nightcap.kube.errors import Forbidden

    service = look.get(paths.service(SYSTEM, name))
    if look.hidden:
        return look.unknown(f"service {name}")
    query = {"labelSelector": f"kubernetes.io/service-name={name}"}
    try:
        slices = list(session.items(paths.endpoint_slices(SYSTEM), query))
    except Forbidden as error:
        look.hidden = error.message
        return look.unknown(f"endpoints of service {name}")
    return checks.check_service(name, service, slices)


def _certificates(look: Looker, now: float) -> Iterator[Line]:
    from nightcap.kube import paths

    bundle = look.get(paths.config_map(SYSTEM, "nightcap-ca"))
    trusted: str | None = None
    if look.hidden:
        yield look.unknown("the CA")
    else:
        trusted = ((bundle or {}).get("data") or {}).get("ca.crt")
        yield checks.check_roots(roots_of(trusted or ""), now)
    for kind, path in (
        ("mutating", paths.mutating_webhook("nightcap")),
        ("validating", paths.validating_webhook("nightcap")),
    ):
        found = look.get(path)
        if look.hidden:
            yield look.unknown(f"{kind} webhook configuration nightcap")
        else:
            yield checks.check_webhooks(kind, found, None if _is_injected(found) else trusted)


def _is_injected(configuration: dict[str, Any] | None) -> bool:
    """Whether cert-manager fills in the `caBundle`, with a CA that is not ours to know."""
    annotations = ((configuration or {}).get("metadata") or {}).get("annotations") or {}
    return "cert-manager.io/inject-ca-from" in annotations


def roots_of(pem: str) -> list[checks.Root] | None:
    """Lives of the roots in a bundle; None if it is no bundle."""
    import ssl

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        return None
    return [
        checks.Root(
            ssl.cert_time_to_seconds(str(root["notBefore"])),
            ssl.cert_time_to_seconds(str(root["notAfter"])),
        )
        for root in context.get_ca_certs()
    ]


def _refusal(session: Session) -> Line:
    """Try a filter that only the webhook can refuse, as a dry run."""
    from nightcap.contract import keys
    from nightcap.kube import paths
    from nightcap.kube.errors import ApiError

    capture = {
        "apiVersion": f"{keys.GROUP}/{keys.VERSION}",
        "kind": keys.KIND,
        "metadata": {"generateName": "nightcap-doctor-"},
        "spec": {"filter": _BAD_FILTER},
    }
    try:
        session.client.request(
            "POST",
            paths.packetcaptures(session.namespace),
            query={"dryRun": "All"},
            body=capture,
        )
    except ApiError as error:
        return checks.check_refusal(False, error.message)
    return checks.check_refusal(True, "")


def _retrieval(session: Session) -> Line:
    from nightcap.cli.reach import SERVICE, fault_of
    from nightcap.kube import paths
    from nightcap.kube.errors import ApiError, Forbidden

    try:
        session.client.request("GET", paths.service_proxy(SYSTEM, SERVICE, "/readyz"))
    except Forbidden as error:
        return Line(
            Mark.NOTE,
            f"files cannot be fetched by you: {error.message}",
            f"ask for it: kubectl -n {SYSTEM} create rolebinding NAME --role=nightcap-reach "
            "--user=YOU",
        )
    except ApiError as error:
        said = fault_of(error, session.namespace).message
        return Line(
            Mark.FAULT,
            f"retrieval is not reached through the API server: {said.partition('; ')[0]}",
            f"kubectl -n {SYSTEM} logs deployment/nightcap-retrieval; what pods hold still is "
            "fetched by: kubectl nightcap get NAME --from-pods",
        )
    return Line(Mark.OK, "retrieval is reached through the API server")


def _namespaces(session: Session) -> Iterator[Line]:
    from nightcap.contract import keys
    from nightcap.kube import paths
    from nightcap.kube.errors import Forbidden

    query = {"labelSelector": f"{keys.INJECT}={keys.INJECT_ENABLED}"}
    try:
        enabled = list(session.items(paths.namespaces(), query))
    except Forbidden as error:
        yield Line(Mark.NOTE, f"which namespaces are enabled is not known: {error.message}")
        return
    enabled = [n for n in enabled if not n["metadata"].get("deletionTimestamp")]
    if not enabled:
        yield Line(Mark.NOTE, "no namespace is enabled", "kubectl nightcap enable NAMESPACE")
    for namespace in enabled[:_MOST_NAMESPACES]:
        yield from _namespace(session, namespace)
    if len(enabled) > _MOST_NAMESPACES:
        rest = len(enabled) - _MOST_NAMESPACES
        yield Line(Mark.NOTE, f"{rest} more enabled namespaces were not looked at")


def _namespace(session: Session, namespace: dict[str, Any]) -> Iterator[Line]:
    from nightcap.cli.namespaces import pods_without_sidecar
    from nightcap.contract.canary import canary_pod, has_sidecar
    from nightcap.kube import paths
    from nightcap.kube.errors import ApiError, NotFound

    name = namespace["metadata"]["name"]
    level = (namespace["metadata"].get("labels") or {}).get(_ENFORCE)
    try:
        answer = session.client.request(
            "POST",
            paths.pods(name),
            query={"dryRun": "All"},
            body=canary_pod("nightcap-doctor-"),
        )
    except NotFound:
        return  # it went meanwhile
    except ApiError as error:
        yield Line(Mark.NOTE, f"namespace {name}: a pod cannot be tried there: {error.message}")
    else:
        yield checks.check_canary(name, level, has_sidecar(json.loads(answer)))
    if level == "restricted":
        return
    yield from examine_egress(Looker(session), name)
    yield from examine_pinned(Looker(session), name)
    try:
        bare = pods_without_sidecar(session, name, enabled=True)
    except ApiError as error:
        yield Line(Mark.NOTE, f"namespace {name}: pods cannot be listed: {error.message}")
        return
    counts = Counter({reason: len(pods) for reason, pods in bare.items()})
    yield checks.check_bare_pods(name, counts)
