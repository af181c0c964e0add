"""`start`: a new PacketCapture, and what to say of it at once."""

from __future__ import annotations

from typing import Any

import click

from nightcap.cli import output as _out
from nightcap.cli import targets, words
from nightcap.cli.follow import (
    After,
    account_option,
    choose_viewer,
    follow_new,
    live_retrieval,
    with_option,
    write_option,
)
from nightcap.cli.options import (
    TARGETS,
    cluster_options,
    dry_run_option,
    output_option,
    session_of,
)
from nightcap.cli.session import Fault, Session, dry_run_mark, dry_run_query


@click.command()
@click.argument("target", nargs=-1, shell_complete=TARGETS)
@click.option("-l", "--selector", metavar="KEY=VALUE", help="Pods by label, as kubectl takes it.")
@click.option("--all", "every", is_flag=True, help="Every pod of the namespace.")
@click.option("-f", "--filter", "expression", metavar="EXPRESSION", help="pcap-filter(7).")
@click.option("--duration", metavar="TIME", help="How long, such as 90s or 1h30m; default 1h.")
@click.option("--snap-length", type=int, metavar="BYTES", help="Bytes kept of each packet.")
@click.option("-i", "--interface", "interfaces", multiple=True, metavar="NAME",
              help="Interface; may be repeated. Default: all but lo.")  # fmt: skip
@click.option("--name", metavar="NAME", help="Of the capture; default: one is made up.")
@click.option("--follow", "following", is_flag=True, help="Show its packets as they arrive.")
@click.option("--stop", "then_stop", is_flag=True,
              help="With --follow: stop it when you leave; its files stay.")  # fmt: skip
@click.option("--rm", "then_remove", is_flag=True,
              help="With --follow: delete it AND ITS FILES when you leave.")  # fmt: skip
@with_option
@write_option
@account_option
@dry_run_option
@output_option("name", "json", "yaml")
@cluster_options
@click.pass_context
def start(
    context: click.Context,
    target: tuple[str, ...],
    selector: str | None,
    every: bool,
    expression: str | None,
    duration: str | None,
    snap_length: int | None,
    interfaces: tuple[str, ...],
    name: str | None,
    following: bool,
    then_stop: bool,
    then_remove: bool,
    viewer: str | None,
    write: str | None,
    account: str | None,
    dry_run: str,
    output: str | None,
) -> None:
    r"""Start a capture of pods, and of pods like them that come later.

    TARGET is deployment/NAME (or statefulset, daemonset, replicaset, job), pod/NAME, or
    several names of pods. With --follow the capture goes on when you leave (Ctrl-C), but
    with --stop or --rm.

    \b
    kubectl nightcap start deployment/checkout --filter 'udp port 53' --duration 30m
    kubectl nightcap start -l app=checkout --name dns
    kubectl nightcap start --all
    kubectl nightcap start pod/checkout-7d4f --follow --with wireshark
    """
    session = session_of(context)
    after = _after_following(following, then_stop, then_remove)
    if following and (output is not None or dry_run != "none"):
        raise click.UsageError("--follow goes with neither -o nor --dry-run", context)
    if not following and (viewer or write or account):
        raise click.UsageError("--with, -w and --as-service-account go with --follow", context)
    chosen = choose_viewer(viewer, write) if following else None
    # Before anything is written: a capture that cannot be followed was not wanted.
    retrieval = live_retrieval(session, account) if following else None
    try:
        wanted = targets.parse_target(target, selector, every=every)
    except targets.BadTarget as error:
        raise click.UsageError(str(error), context) from error
    spec: dict[str, Any] = _selection(session, wanted)
    if expression:
        spec["filter"] = expression
    if duration:
        spec["duration"] = duration
    if snap_length is not None:
        spec["snapLength"] = snap_length
    if interfaces:
        spec["interfaces"] = list(interfaces)
    capture = _new_capture(session.namespace, name, targets.name_base(wanted), spec)
    created = _create(session, capture, dry_run)
    if chosen is not None and retrieval is not None:
        made = created["metadata"]["name"]
        _out.note(f"{words.KIND}/{made} created")
        _hint_not_enabled(session)
        _hint_no_such_pods(session, wanted)
        follow_new(session, retrieval, created, chosen, after)
        return
    _out.written(created, output, f"created{dry_run_mark(dry_run)}")
    if dry_run == "none" and output is None:
        made = created["metadata"]["name"]
        _hint_not_enabled(session)
        _hint_no_such_pods(session, wanted)
        _out.note(f"see it: kubectl nightcap status {made} -n {session.namespace}")


def _after_following(following: bool, then_stop: bool, then_remove: bool) -> After:
    if (then_stop or then_remove) and not following:
        raise click.UsageError("--stop and --rm go with --follow")
    if then_stop and then_remove:
        raise click.UsageError("give --stop (files stay) or --rm (files go), not both")
    return After.REMOVE if then_remove else After.STOP if then_stop else After.GO_ON


def _selection(session: Session, target: targets.Target) -> dict[str, Any]:
    if isinstance(target, targets.Pods):
        return {"podNames": list(target.names)}
    if isinstance(target, targets.Selected):
        return {"selector": dict(target.selector)} if target.selector else {}
    from nightcap.kube import paths
    from nightcap.kube.errors import NotFound

    path = paths.workload(target.group, session.namespace, target.resource, target.name)
    kind = target.resource.removesuffix("s")
    try:
        selector = session.get(path).get("spec", {}).get("selector")
    except NotFound as error:
        raise Fault(
            f"{kind} {target.name!r} does not exist in namespace {session.namespace}; "
            f"kubectl -n {session.namespace} get {target.resource} shows what does"
        ) from error
    if not selector:
        raise Fault(f"{kind} {target.name!r} has no selector of pods; use -l KEY=VALUE")
    return {"selector": selector}


def _new_capture(
    namespace: str, name: str | None, base: str, spec: dict[str, Any]
) -> dict[str, Any]:
    from nightcap.contract import keys

    named = {"name": name} if name else {"generateName": base}
    return {
        "apiVersion": f"{keys.GROUP}/{keys.VERSION}",
        "kind": keys.KIND,
        "metadata": {**named, "namespace": namespace},
        "spec": spec,
    }


def _create(session: Session, capture: dict[str, Any], dry_run: str) -> dict[str, Any]:
    import json

    from nightcap.contract.captures import BadCapture, parse_capture, resolve
    from nightcap.kube import paths

    # The same words as the webhook's and the controller's, before anything is written.
    try:
        resolve(parse_capture(json.dumps(capture).encode()))
    except BadCapture as error:
        raise Fault(str(error)) from error
    if dry_run == "client":
        return capture
    answer = session.client.request(
        "POST",
        paths.packetcaptures(session.namespace),
        query=dry_run_query(dry_run),
        body=capture,
    )
    created: dict[str, Any] = json.loads(answer)
    return created


def _hint_not_enabled(session: Session) -> None:
    """Say at once what would otherwise be found out by waiting; silent without the right."""
    from nightcap.contract import keys
    from nightcap.kube import paths
    from nightcap.kube.errors import ApiError

    try:
        namespace = session.get(paths.namespace(session.namespace))
    except ApiError:
        return
    if (namespace["metadata"].get("labels") or {}).get(keys.INJECT) != keys.INJECT_ENABLED:
        _out.note(
            f"namespace {session.namespace} is not enabled: its pods have no sidecar. "
            f"First: kubectl nightcap enable {session.namespace}"
        )


def _hint_no_such_pods(session: Session, wanted: targets.Target) -> None:
    """Say which of the pods that were named are not there; they may come, or are misspelt."""
    from nightcap.kube import paths
    from nightcap.kube.errors import ApiError, NotFound

    for name in wanted.names if isinstance(wanted, targets.Pods) else ():
        try:
            session.get(paths.pod(session.namespace, name))
        except NotFound:
            _out.note(
                f"there is no pod {name} in namespace {session.namespace} now; "
                f"kubectl -n {session.namespace} get pods shows what there is"
            )
        except ApiError:
            return
