"""`enable` and `disable`: whether pods of a namespace get the sidecar from now on."""

from __future__ import annotations

from typing import Any

import click

from nightcap.cli import output as _out
from nightcap.cli import words
from nightcap.cli.options import (
    cluster_options,
    dry_run_option,
    namespace_argument,
    output_option,
    session_of,
)
from nightcap.cli.session import Session, dry_run_mark
from nightcap.listing import first_of

_SHOWN = 5


@click.command()
@namespace_argument
@dry_run_option
@output_option("name", "json", "yaml")
@cluster_options
@click.pass_context
def enable(context: click.Context, namespace: str, dry_run: str, output: str | None) -> None:
    r"""Let new pods of NAMESPACE get the dormant sidecar; says which pods to restart.

    \b
    kubectl nightcap enable shop
    """
    from nightcap.contract import keys

    session = session_of(context)
    _label(session, namespace, keys.INJECT_ENABLED, dry_run, output, "enabled")
    if output is None:
        bare = pods_without_sidecar(session, namespace, enabled=True)
        if not bare:
            _out.note("every pod that runs there has its sidecar")
        for why, pods in bare.items():
            _tell(namespace, f"without sidecar: {why}", pods, restart="restart them" in why)


@click.command()
@namespace_argument
@dry_run_option
@output_option("name", "json", "yaml")
@cluster_options
@click.pass_context
def disable(context: click.Context, namespace: str, dry_run: str, output: str | None) -> None:
    r"""Let new pods of NAMESPACE be; says which pods keep the sidecar until a restart.

    \b
    kubectl nightcap disable shop
    """
    session = session_of(context)
    _label(session, namespace, None, dry_run, output, "disabled")
    if output is None:
        carrying = [pod for pod, read in _living(session, namespace) if _has_sidecar(read)]
        if carrying:
            _tell(namespace, "with a sidecar until the next restart", carrying, restart=True)


def _label(
    session: Session, namespace: str, value: str | None, dry_run: str, how: str | None, done: str
) -> None:
    from nightcap.contract import keys
    from nightcap.kube import paths

    change = {"metadata": {"labels": {keys.INJECT: value}}}
    labelled = session.patch(paths.namespace(namespace), change, dry_run)
    if how == "name":
        click.echo(f"namespace/{namespace}")
    elif how:
        click.echo(_out.dump(labelled, how))
    else:
        click.echo(f"namespace/{namespace} {done}{dry_run_mark(dry_run)}")


def pods_without_sidecar(
    session: Session, namespace: str, *, enabled: bool
) -> dict[str, list[dict[str, Any]]]:
    """Living pods that have no sidecar, by the reason why.

    Args:
        session: Whose rights count.
        namespace: Of the pods.
        enabled: Take the namespace as opted in, whatever its label says (a dry run).
    """
    from msgspec import convert, structs

    from nightcap.contract import keys
    from nightcap.contract.coverage import why_without_sidecar
    from nightcap.contract.objects import Namespace
    from nightcap.kube import paths

    read = convert(session.get(paths.namespace(namespace)), Namespace)
    if enabled:
        labels = {**(read.metadata.labels or {}), keys.INJECT: keys.INJECT_ENABLED}
        read = structs.replace(read, metadata=structs.replace(read.metadata, labels=labels))
    found: dict[str, list[dict[str, Any]]] = {}
    for pod, as_read in _living(session, namespace):
        if not _has_sidecar(as_read):
            found.setdefault(why_without_sidecar(as_read, read), []).append(pod)
    return found


def _living(session: Session, namespace: str) -> list[tuple[dict[str, Any], Any]]:
    from msgspec import convert

    from nightcap.contract.objects import Pod
    from nightcap.kube import paths

    both = [(pod, convert(pod, Pod)) for pod in session.items(paths.pods(namespace))]
    return [
        (pod, read)
        for pod, read in both
        if not read.is_over and read.metadata.deletion_timestamp is None
    ]


def _has_sidecar(pod: Any) -> bool:
    from nightcap.contract.coverage import has_sidecar

    return has_sidecar(pod)


def _tell(namespace: str, what: str, pods: list[dict[str, Any]], *, restart: bool) -> None:
    names = sorted(pod["metadata"]["name"] for pod in pods)
    pods_are = "1 pod" if len(names) == 1 else f"{len(names)} pods"
    _out.note(f"{pods_are} {what}:\n  {first_of(names, _SHOWN)}")
    if restart:
        for command in sorted(words.restarts(pods)):
            _out.note(f"  kubectl -n {namespace} {command}")
