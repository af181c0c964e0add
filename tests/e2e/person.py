"""People who call `kubectl nightcap`, each by a kubeconfig; their commands run in this process."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nightcap.cli.program import run
from tests.e2e.shop import Shop


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a kubeconfig."""

    kubeconfig: Path

    def __call__(self, *arguments: str, cwd: Path | None = None) -> Said:
        out, err = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            if cwd is not None:
                stack.enter_context(contextlib.chdir(cwd))
            code = run(["--kubeconfig", str(self.kubeconfig), *arguments])
            out.flush()
            err.flush()
        said = err.buffer.getvalue().decode()  # type: ignore[attr-defined]
        return Said(code, out.buffer.getvalue(), said)  # type: ignore[attr-defined]

    def ok(self, *arguments: str, cwd: Path | None = None) -> str:
        said = self(*arguments, cwd=cwd)
        assert said.code == 0, (arguments, said)
        return said.out


def person(shop: Shop, name: str, folder: Path, *roles: str) -> Person:
    """A service account with these cluster roles in the shop, as a kubeconfig with a token."""
    return visitor(shop, name, shop.person(name, *roles), folder)


def visitor(shop: Shop, name: str, token: str, folder: Path) -> Person:
    """Whoever has this token."""
    config = json.loads(shop.kubectl.run("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"] = [{"name": name, "user": {"token": token}}]
    (context,) = config["contexts"]
    context["context"] |= {"user": name, "namespace": shop.name}
    file = folder / f"{name}.kubeconfig"
    file.write_text(json.dumps(config))
    return Person(file)


@contextlib.contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Do something in another thread; its error is this test's."""
    failed: list[Exception] = []

    def work() -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failed:
        raise failed[0]
