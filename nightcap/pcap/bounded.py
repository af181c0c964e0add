"""Compile a stranger's filter in a helper process with limits on CPU, memory and time."""

import json
import subprocess
import sys
from pathlib import Path

from nightcap.pcap.libpcap import EN10MB

_CHECK = Path(__file__).with_name("check.py")


class NotCompiledInTime(TimeoutError):
    """The helper gave no answer in time: the filter may be at fault, or the machine is busy."""


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
        NotCompiledInTime: nobody knows. No filter within the contract's limits comes near a
            second of CPU; a machine with other work may take one to start the helper.
    """
    command = [sys.executable, "-I", "-S", "-E", str(_CHECK), str(linktype)]
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
        raise NotCompiledInTime(f"took longer than {timeout:g} s to compile") from error
    except OSError as error:
        return f"filter could not be checked: {error}"
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return (
            f"filter takes too much CPU or memory to compile (helper ended with {done.returncode})"
        )
    error_text = answer.get("error")
    return None if error_text is None else str(error_text)
