"""`start`, `stop`, `list`, `status`, `rm`: PacketCapture objects, and what is true of them."""

from __future__ import annotations

import sys
import time
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
    CAPTURES,
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
        follow_new(session, retrieval, created, chosen, after)
        return
    _print_written(created, output, f"created{dry_run_mark(dry_run)}")
    if dry_run == "none" and output is None:
        made = created["metadata"]["name"]
        _hint_not_enabled(session)
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


@click.command()
@click.argument("name", nargs=-1, required=True, shell_complete=CAPTURES)
@dry_run_option
@output_option("name", "json", "yaml")
@cluster_options
@click.pass_context
def stop(context: click.Context, name: tuple[str, ...], dry_run: str, output: str | None) -> None:
    r"""Stop captures now; the files stay and can still be fetched.

    \b
    kubectl nightcap stop dns
    """
    from nightcap.kube import paths

    session = session_of(context)
    for one in name:
        path = paths.packetcapture(session.namespace, one)
        stopped = session.patch(path, {"spec": {"suspend": True}}, dry_run)
        _print_written(stopped, output, f"stopped{dry_run_mark(dry_run)}; its files stay")


@click.command("list")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@output_option("wide", "name", "json", "yaml")
@cluster_options
@click.pass_context
def list_captures(context: click.Context, everywhere: bool, output: str | None) -> None:
    r"""List the captures of a namespace, or of all.

    \b
    kubectl nightcap list -o wide
    """
    from nightcap.kube import paths

    session = session_of(context)
    found = list(session.items(paths.packetcaptures(None if everywhere else session.namespace)))
    if output in ("json", "yaml"):
        click.echo(_out.dump(_out.a_list(found), output))
        return
    if output == "name":
        for capture in found:
            click.echo(f"{words.KIND}/{capture['metadata']['name']}")
        return
    if not found:
        _out.note(
            "no captures " + ("at all" if everywhere else f"in namespace {session.namespace}")
        )
        return
    wide, now = output == "wide", time.time()
    head = words.LIST_HEAD + (words.WIDE_HEAD if wide else ())
    rows = [head, *(words.list_row(capture, now, wide=wide) for capture in found)]
    if everywhere:
        spaces = ["NAMESPACE", *(capture["metadata"]["namespace"] for capture in found)]
        rows = [(space, *row) for space, row in zip(spaces, rows, strict=True)]
    click.echo(_out.table(rows))


@click.command()
@click.argument("name", shell_complete=CAPTURES)
@output_option("name", "json", "yaml")
@cluster_options
@click.pass_context
def status(context: click.Context, name: str, output: str | None) -> None:
    r"""Say what a capture does, and when nothing is captured, why, and what to do.

    \b
    kubectl nightcap status dns
    """
    from nightcap.kube import paths

    session = session_of(context)
    capture = session.get(paths.packetcapture(session.namespace, name))
    if output == "name":
        click.echo(f"{words.KIND}/{name}")
    elif output:
        click.echo(_out.dump(capture, output))
    else:
        rows = [(f"{key}:", value) for key, value in words.status_rows(capture)]
        click.echo(_out.table(rows))
        click.echo()
        for line in words.explain(capture, time.time()):
            click.echo(_out.line(line))


@click.command()
@click.argument("name", nargs=-1, required=True, shell_complete=CAPTURES)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@dry_run_option
@cluster_options
@click.pass_context
def rm(context: click.Context, name: tuple[str, ...], yes: bool, dry_run: str) -> None:
    r"""Delete captures AND THEIR FILES. To keep the files, use `stop`.

    \b
    kubectl nightcap rm dns -y
    """
    from nightcap.kube import paths

    session = session_of(context)
    for one in name:
        path = paths.packetcapture(session.namespace, one)
        capture = session.get(path)
        if dry_run == "none" and not yes:
            _ask_for_deletion(capture)
        if dry_run != "client":
            # The capture that was shown, and not one that was made again under its name.
            session.delete(path, capture["metadata"]["uid"], dry_run)
        click.echo(f"{words.KIND}/{one} deleted, with its files{dry_run_mark(dry_run)}")


def _ask_for_deletion(capture: dict[str, Any]) -> None:
    name, state = capture["metadata"]["name"], capture.get("status") or {}
    if not sys.stdin.isatty():
        raise Fault(
            f"{name}: deleting a capture deletes its files; say -y when nobody can be asked, "
            "or use `kubectl nightcap stop`, which keeps them"
        )
    size = words.human_size(int(state.get("size") or 0))
    question = f"Delete {name} with its files ({state.get('packets', 0)} packets, {size})?"
    if not click.confirm(question, err=True):
        raise Fault(f"{name} was not deleted, as you said")


def _print_written(item: dict[str, Any], how: str | None, done: str) -> None:
    metadata = item["metadata"]
    name = metadata.get("name") or f"{metadata.get('generateName', '')}…"
    if how == "name":
        click.echo(f"{words.KIND}/{name}")
    elif how:
        click.echo(_out.dump(item, how))
    else:
        click.echo(f"{words.KIND}/{name} {done}")
