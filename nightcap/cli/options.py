"""Options that several commands have, called as kubectl calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from nightcap.cli import suggestions
from nightcap.cli.session import Session

Command = TypeVar("Command", bound=Callable[..., Any])


def session_of(context: click.Context) -> Session:
    """The run's session; made here, so that completion has it too."""
    root = context.find_root()
    if not isinstance(root.obj, Session):
        root.obj = Session()
        root.call_on_close(root.obj.close)
    return root.obj


def _into_session(field: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def store(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            setattr(session_of(context), field, value)

    return store


def _completed(
    suggest: Callable[[Session], list[str]],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    def complete(
        context: click.Context, _parameter: click.Parameter, typed: str
    ) -> list[CompletionItem]:
        found = suggestions.quietly(lambda: suggest(session_of(context)))
        return [CompletionItem(name) for name in found if name.startswith(typed)]

    return complete


CAPTURES = _completed(suggestions.captures)
TARGETS = _completed(suggestions.targets)
PODS = _completed(suggestions.pods)
NAMESPACES = _completed(suggestions.namespaces)


def _without_kind(
    *kinds: str,
) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Take `KIND/NAME` for NAME: what `-o name` has printed can be given back, as to kubectl."""

    def bare(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(bare(context, parameter, one) for one in value)
        kind, slash, name = str(value).rpartition("/")
        if slash and kind.lower() not in kinds:
            raise click.BadParameter(
                f"{value!r}: write the name alone, or {kinds[0]}/NAME", context, parameter
            )
        return name

    return bare


CAPTURE_KINDS = (
    "packetcapture", "packetcaptures", "pcap", "packetcapture.nightcap.dev",
    "packetcaptures.nightcap.dev",
)  # fmt: skip


def capture_argument(nargs: int = 1) -> Callable[[Command], Command]:
    """NAME of one capture, or of several (-1)."""
    return click.argument(
        "name", nargs=nargs, required=True, shell_complete=CAPTURES,
        callback=_without_kind(*CAPTURE_KINDS),
    )  # fmt: skip


pod_argument = click.argument(
    "pod", shell_complete=PODS, callback=_without_kind("pod", "pods", "po")
)
pods_option = click.option(
    "--pod", "pods", multiple=True, metavar="NAME", shell_complete=PODS,
    callback=_without_kind("pod", "pods", "po"),
    help="Only this pod's packets; may be repeated.",
)  # fmt: skip
namespace_argument = click.argument(
    "namespace", shell_complete=NAMESPACES, callback=_without_kind("namespace", "namespaces", "ns")
)


def cluster_options(command: Command) -> Command:
    """`-n`, `--context`, `--kubeconfig`: before or after the command's name."""
    for decorate in (
        click.option(
            "--kubeconfig", metavar="FILE", expose_value=False, is_eager=True,
            callback=_into_session("kubeconfig"), help="Kubeconfig to use.",
        ),
        click.option(
            "--context", "context_option", metavar="NAME", expose_value=False, is_eager=True,
            callback=_into_session("context"),
            shell_complete=_completed(suggestions.contexts), help="Context of the kubeconfig.",
        ),
        click.option(
            "-n", "--namespace", "namespace_option", metavar="NAME", expose_value=False,
            is_eager=True, callback=_into_session("namespace_option"),
            shell_complete=NAMESPACES, help="Namespace; default: the context's.",
        ),
    ):  # fmt: skip
        command = decorate(command)
    return command


def output_option(*formats: str) -> Callable[[Command], Command]:
    """`-o`, with what the command can write."""
    return click.option(
        "-o", "--output", "output", type=click.Choice(formats), metavar="|".join(formats),
        help="How to write the answer.",
    )  # fmt: skip


dry_run_option = click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    is_flag=False,
    flag_value="client",
    default="none",
    metavar="none|client|server",
    help="client: only say what would be written; server: let the API server judge it too.",
)
