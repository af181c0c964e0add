"""`stop`, `list`, `status`, `rm`: captures that there are, and what is true of them."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from nightcap.cli import output as _out
from nightcap.cli import words
from nightcap.cli.options import (
    capture_argument,
    cluster_options,
    dry_run_option,
    output_option,
    session_of,
)
from nightcap.cli.session import Fault, dry_run_mark


@click.command()
@capture_argument(nargs=-1)
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
        _out.written(stopped, output, f"stopped{dry_run_mark(dry_run)}; its files stay")


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
@capture_argument()
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
@capture_argument(nargs=-1)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@dry_run_option
@output_option("name")
@cluster_options
@click.pass_context
def rm(
    context: click.Context, name: tuple[str, ...], yes: bool, dry_run: str, output: str | None
) -> None:
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
        _out.written(capture, output, f"deleted, with its files{dry_run_mark(dry_run)}")


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
