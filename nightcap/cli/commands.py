"""Which commands there are, without importing any: each module is loaded when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

_COMMANDS: Final = {
    "start": ("start:start", "Start a capture of pods"),
    "stop": ("captures:stop", "Stop captures; their files stay"),
    "list": ("captures:list_captures", "List captures"),
    "status": ("captures:status", "Say what a capture does, and why nothing is captured"),
    "rm": ("captures:rm", "Delete captures and their files"),
    "follow": ("follow:follow", "Show a capture's packets as they arrive"),
    "files": ("files:files", "List the files of a capture"),
    "get": ("files:get", "Fetch what a capture has recorded"),
    "attach": ("attach:attach", "Capture in a pod without sidecar, without a restart"),
    "enable": ("namespaces:enable", "Let new pods of a namespace get the sidecar"),
    "disable": ("namespaces:disable", "Let new pods of a namespace be"),
    "doctor": ("doctor:doctor", "Check the installation, and your rights"),
    "completion": ("completion:completion", "Print a completion script for a shell"),
}
"""Name -> where it is, and what the list of commands says of it."""


class NobodyReadsError(Exception):
    """Whoever the answer was for has seen enough of it, as in `| head`."""


def _as_kubectl_reads(arguments: list[str]) -> list[str]:
    """`--dry-run` takes its value after `=` alone: what comes next is no value but a name."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    read = ["--dry-run=client" if word == "--dry-run" else word for word in own]
    return [*read, *arguments[len(own) :]]


class LazyGroup(click.Group):
    """A group that knows its commands' names and first lines by heart."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = _COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, _, name = where[0].partition(":")
        command: click.Command = getattr(import_module(f"nightcap.cli.{module}"), name)
        command.short_help = where[1]
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _as_kubectl_reads(args))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # Click would end with 1, as if it had gone wrong.
            raise NobodyReadsError from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][1]) for name in sorted(_COMMANDS)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found: list[CompletionItem] = [
            CompletionItem(name, help=_COMMANDS[name][1])
            for name in sorted(_COMMANDS)
            if name.startswith(incomplete)
        ]
        # The options; not the group's own way, which loads every command.
        found.extend(click.Command.shell_complete(self, ctx, incomplete))
        return found

    def all_commands(self) -> dict[str, click.Command]:
        """Every command, loaded; for those who look at them all."""
        context: Any = None
        found = {name: self.get_command(context, name) for name in _COMMANDS}
        return {name: command for name, command in found.items() if command is not None}
