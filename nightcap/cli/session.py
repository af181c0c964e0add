"""One run of the command line: which cluster, which namespace, and how it is asked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from nightcap.kube.client import KubeClient
    from nightcap.kube.light import LightClient
    from nightcap.kube.quick import Quick

SYSTEM: Final = "nightcap-system"
_PAGE: Final = "500"


class Fault(click.ClickException):
    """What went wrong: the value, the rule, and what to do next."""

    def show(self, file: Any = None) -> None:
        click.echo(click.style("error: ", fg="red", bold=True) + self.message, err=True)


@dataclass
class Session:
    """What the options say; clients are made when they are first needed."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace_option: str | None = field(default=None)

    @cached_property
    def client(self) -> KubeClient | LightClient:
        """What asks the API server: the light one where the kubeconfig allows that.

        Raises:
            ClusterUnavailable: there is no usable kubeconfig, or its login program fails.
        """
        from nightcap.kube.light import LightClient
        from nightcap.kube.quick import NotQuick

        if self._quick is not None:
            with contextlib.suppress(NotQuick):
                return LightClient(self._quick)
        return self.official

    @cached_property
    def official(self) -> KubeClient:
        """The one that any kubeconfig will do for, and that runs commands in containers.

        Raises:
            ClusterUnavailable: as `client`.
        """
        from nightcap.kube.client import KubeClient

        return KubeClient.from_environment(self.kubeconfig, self.context)

    @cached_property
    def namespace(self) -> str:
        """The one that was named, or the kubeconfig context's."""
        if self.namespace_option:
            return self.namespace_option
        if self._quick is not None:
            return self._quick.namespace
        from nightcap.kube.kubeconfig import default_namespace

        return default_namespace(self.kubeconfig, self.context)

    def contexts(self) -> list[str]:
        """Names of the kubeconfig's contexts."""
        if self._quick is not None:
            return list(self._quick.contexts)
        from nightcap.kube.kubeconfig import context_names

        return context_names(self.kubeconfig)

    @cached_property
    def _quick(self) -> Quick | None:
        """The kubeconfig, if it can be read without the official client."""
        from nightcap.kube import quick

        try:
            return quick.load(self.kubeconfig, self.context)
        except quick.NotQuick:
            return None

    def close(self) -> None:
        """Close connections; the session can be used again."""
        for made in ("client", "official"):
            if made in self.__dict__:
                self.__dict__[made].close()

    def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One object as it is served."""
        found: dict[str, Any] = json.loads(self.client.request("GET", path, query=query))
        return found

    def items(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """Every object of a list, page by page."""
        asked = {"limit": _PAGE, **(query or {})}
        while True:
            page = self.get(path, asked)
            # Items of a list carry no kind of their own.
            kind = str(page.get("kind", "")).removesuffix("List")
            for item in page.get("items") or ():
                yield {"apiVersion": page.get("apiVersion"), "kind": kind, **item}
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            asked["continue"] = token

    def patch(self, path: str, change: dict[str, Any], dry_run: str) -> dict[str, Any]:
        """Merge a change into an object; see `options.dry_run`."""
        from nightcap.kube.agent import MERGE_PATCH

        if dry_run == "client":
            return self.get(path)
        answer = self.client.request(
            "PATCH", path, query=dry_run_query(dry_run), body=change, content_type=MERGE_PATCH
        )
        changed: dict[str, Any] = json.loads(answer)
        return changed

    def delete(self, path: str, uid: str, dry_run: str = "none") -> None:
        """Delete an object, if it is still the one with this uid."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
        self.client.request("DELETE", path, query=dry_run_query(dry_run), body=body)


def dry_run_query(dry_run: str) -> dict[str, str]:
    """What a writing request says when nothing is to be kept of it."""
    return {"dryRun": "All"} if dry_run == "server" else {}


def dry_run_mark(dry_run: str) -> str:
    """What kubectl adds to its sentence when nothing was kept."""
    return {"client": " (dry run)", "server": " (server dry run)"}.get(dry_run, "")
