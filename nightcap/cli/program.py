"""The program `kubectl-nightcap`: its commands, and how it ends."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

import nightcap
from nightcap.cli.commands import LazyGroup, NobodyReadsError
from nightcap.cli.options import cluster_options
from nightcap.cli.session import Fault

PROGRAM = "kubectl nightcap"
COMPLETE_VARIABLE = "_KUBECTL_NIGHTCAP_COMPLETE"
INTERRUPTED = 130


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(nightcap.__version__, message="%(version)s")
@cluster_options
def cli() -> None:
    """Packet capture that sleeps in every pod until somebody needs it."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process.

    Exit codes: 0 done, 1 it could not be done, 2 it was asked in a wrong way,
    130 interrupted.
    """
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        code: Any = cli.main(
            arguments, prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, standalone_mode=False
        )
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except NobodyReadsError:
        sys.stdout = None
        return 0
    except Exception as error:
        fault = _fault_of(error)
        if fault is None:
            raise
        fault.show()
        return fault.exit_code
    return code if isinstance(code, int) else 0


def _fault_of(error: Exception) -> Fault | None:
    """What the API server said, with what to do; None for an error of our own."""
    from nightcap.kube import errors

    if not isinstance(error, errors.ApiError):
        return None
    said = error.message
    match error:
        case errors.NotFound() if _is_of_the_api(said):
            return Fault(
                "this cluster serves no packetcaptures.nightcap.dev: Nightcap is not installed "
                "there (kubectl nightcap doctor), or --context names another cluster"
            )
        case errors.NotFound():
            shows = "get namespaces" if said.startswith("namespaces ") else "nightcap list -A"
            return Fault(f"{said}; kubectl {shows} shows what there is")
        case errors.Forbidden():
            return Fault(
                f"{said}; ask whoever administers the cluster for the roles nightcap-capture and "
                "nightcap-files there (kubectl nightcap doctor says which one is missing)"
            )
        case errors.Unauthorized():
            return Fault(f"{said}: the cluster does not accept this kubeconfig's login; log in")
        case errors.AlreadyExists():
            return Fault(f"{said}; choose another --name, or leave it out")
        case errors.ClusterUnavailable() if error.reason == "NoLogin":
            return Fault(f"{said}; log in as you do for kubectl, and try `kubectl version`")
        case errors.ClusterUnavailable() if error.status == 0:
            return Fault(f"{said}; look at --context, and whether `kubectl version` answers")
        case _:
            return Fault(said)


def _is_of_the_api(said: str) -> bool:
    """Whether it is no object that is missing but the whole API: there is no such path."""
    return said.strip() in ("no message", "404 page not found") or (
        "could not find the requested" in said
    )
