"""Completion: a script for each shell, and the answers to kubectl's own."""

from __future__ import annotations

import os
import sys

import click
from click.shell_completion import ShellComplete, get_completion_class

_NO_FILES = 4
"""Cobra's directive: these are all the candidates, names of files are none."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    r"""Print a completion script for `kubectl-nightcap`.

    `kubectl nightcap` needs none: kubectl's own completion asks the program
    `kubectl_complete-nightcap`, which was installed along.

    \b
    source <(kubectl nightcap completion bash)
    """
    from nightcap.cli.program import COMPLETE_VARIABLE

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"shell {shell!r} is unknown", context)
    root = context.find_root().command
    click.echo(kind(root, {}, "kubectl-nightcap", COMPLETE_VARIABLE).source())


def answer_kubectl() -> None:
    """The program `kubectl_complete-nightcap`: candidates, then `:` and Cobra's directive.

    The arguments are the words so far; the last one is still being typed.
    """
    from nightcap.cli.program import COMPLETE_VARIABLE, cli

    *words, typed = sys.argv[1:] or [""]
    # The variable would make a program that is started from here complete as well.
    os.environ.pop(COMPLETE_VARIABLE, None)
    complete = ShellComplete(cli, {}, "kubectl-nightcap", COMPLETE_VARIABLE)
    found = complete.get_completions(words, typed)
    for candidate in found:
        if candidate.type == "plain":
            help_text = f"\t{candidate.help}" if candidate.help else ""
            click.echo(f"{candidate.value}{help_text}")
    wants_files = any(candidate.type in ("file", "dir") for candidate in found)
    click.echo(f":{0 if wants_files else _NO_FILES}")
