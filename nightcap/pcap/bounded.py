"""Compile a stranger's filter in a helper process with limits on CPU, memory and time."""

import json
import subprocess
import sys
from pathlib import Path

from nightcap.pcap.libpcap import EN10MB

_CHECK = Path(__file__).with_name("check.py")


class Undecided(Exception):
    """The helper gave no answer: the filter may be at fault, or the machine is busy."""


def check_filter(expression: str, timeout: float = 1.0, linktype: int = EN10MB) -> str | None:
    """Say why a filter cannot be used.

    Args:
        expression: pcap-filter(7); empty is fine. Names of hosts must have been refused before
            (`nightcap.contract.filters.check_expression`): libpcap would ask DNS.
        timeout: Seconds that all of it may take.
        linktype: Of the packets that it is for.

    Returns:
        None when it compiles; otherwise libpcap's own words, or which limit it met.

    Raises:
        Undecided: nobody knows. Hardly a filter within the contract's limits comes near a
            second of CPU; a machine with other work may take one to start the helper.
    """
    limit, words = _compile(expression, timeout, linktype)
    return limit or words


def find_too_costly(expression: str, cpu_seconds: float, timeout: float = 30.0) -> str | None:
    """Say which limit a filter meets; one that does not compile for another reason is fine here.

    Args:
        expression: As for `check_filter`.
        cpu_seconds: What the helper may take of the processor, some 0.05 for its start included.
        timeout: Seconds that all of it may take.

    Raises:
        Undecided: nobody knows.
    """
    return _compile(expression, timeout, EN10MB, cpu_seconds)[0]


def _compile(
    expression: str, timeout: float, linktype: int, cpu_seconds: float | None = None
) -> tuple[str | None, str | None]:
    """Which limit was met, and if none was, what libpcap says; None where nothing is wrong."""
    command = [sys.executable, "-I", "-S", "-E", str(_CHECK), str(linktype)]
    if cpu_seconds is not None:
        command.append(str(cpu_seconds))
    try:
        done = subprocess.run(
            command,
            input=expression.encode("utf-8", "surrogateescape"),
            capture_output=True,
            timeout=timeout,
            check=False,
            env={},
        )
    except subprocess.TimeoutExpired as error:
        raise Undecided(f"took longer than {timeout:g} s to compile") from error
    except OSError as error:
        raise Undecided(f"could not be checked: {error}") from error
    try:
        error_text = json.loads(done.stdout).get("error")
    except ValueError:
        ended = f"helper ended with {done.returncode}"
        return f"filter takes too much CPU or memory to compile ({ended})", None
    return None, None if error_text is None else str(error_text)
