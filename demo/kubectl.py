"""kubectl as a library: the walk-through does what a person would do, with the person's tool."""

import contextlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class KubectlError(Exception):
    """A command that failed; the message is the command and what it said."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """One kubectl and the cluster it speaks to.

    Attributes:
        binary: The program.
        kubeconfig: Its configuration; None for kubectl's own way of finding one.
        user: Service account (`namespace:name`) or other user to act as; None for oneself.
    """

    binary: str
    kubeconfig: Path | None = None
    user: str | None = None

    def run(self, *arguments: str, stdin: str | None = None, timeout_seconds: float = 120) -> str:
        """Run a command and return what it prints.

        Raises:
            KubectlError: it failed, or took longer than `timeout_seconds`.
        """
        command = self._command(arguments)
        try:
            done = subprocess.run(
                command,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout_seconds,
                check=False,
                env=self._environment(),
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlError(
                f"kubectl {' '.join(arguments)}: no answer in {timeout_seconds:g} s"
            ) from error
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Run a command with `-o json` and decode its answer."""
        return json.loads(self.run(*arguments, "-o", "json"))

    def apply(self, text: str, *arguments: str) -> str:
        return self.run("apply", "-f", "-", *arguments, stdin=text)

    def delete(self, *arguments: str) -> str:
        return self.run("delete", "--ignore-not-found", *arguments, timeout_seconds=180)

    def token(self, namespace: str, account: str) -> str:
        """A short-lived token of a service account."""
        return self.run("-n", namespace, "create", "token", account).strip()

    def rolled_out(self, namespace: str, deployment: str, timeout_seconds: float = 120) -> None:
        """Wait until a deployment runs as it is written.

        Raises:
            KubectlError: it does not within `timeout_seconds`.
        """
        self.run(
            "-n", namespace, "rollout", "status", f"deployment/{deployment}",
            f"--timeout={timeout_seconds:g}s", timeout_seconds=timeout_seconds + 10,
        )  # fmt: skip

    @contextlib.contextmanager
    def port_forward(self, namespace: str, target: str, port: int) -> Iterator[int]:
        """Forward a free local port to `target`; yields that port."""
        arguments = ("-n", namespace, "port-forward", target, f":{port}", "--address=127.0.0.1")
        with subprocess.Popen(
            self._command(arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment(),
        ) as process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                match = re.search(r"127\.0\.0\.1:(\d+)", line)
                if match is None:
                    process.kill()
                    said = process.stderr.read() if process.stderr else ""
                    raise KubectlError(f"kubectl port-forward {target}: {said.strip()}")
                yield int(match[1])
            finally:
                process.terminate()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        impersonation = [f"--as={self.user}"] if self.user else []
        return [self.binary, *impersonation, *arguments]

    def _environment(self) -> dict[str, str]:
        if self.kubeconfig is None:
            return dict(os.environ)
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}


class NotInTimeError(Exception):
    """Something that was promised did not happen in time."""


def wait_for(
    what: str, ask: Callable[[], T | None], timeout_seconds: float = 60, pause: float = 0.2
) -> T:
    """Ask again and again until the answer is there (not None, not False).

    Raises:
        NotInTimeError: naming `what` and the last error that asking raised.
    """
    deadline = time.monotonic() + timeout_seconds
    last: Exception | None = None
    while True:
        try:
            answer = ask()
        except (KubectlError, OSError, LookupError) as error:
            last, answer = error, None
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            because = f" ({last})" if last else ""
            raise NotInTimeError(f"{what}: not within {timeout_seconds:g} s{because}")
        time.sleep(pause)
