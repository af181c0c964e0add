"""docs/options.md against the CRD and the programs: nothing missing, nothing wrong."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.settings import Settings as ControllerSettings
from nightcap.contract import keys
from nightcap.contract.annotation_options import parse_options
from nightcap.contract.captures import parse_capture, resolve
from retrieval.gateway import GatewaySettings
from retrieval.settings import Settings as RetrievalSettings
from sidecar.settings import Settings as SidecarSettings
from webhook.settings import Settings as WebhookSettings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "options.md").read_text()
CRD = next(
    document
    for document in yaml.safe_load_all((ROOT / "manifests" / "base" / "crd.yaml").read_text())
    if document["spec"]["names"]["kind"] == "PacketCapture"
)
SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]


def _section(title: str) -> str:
    """A section's text, those below it included."""
    match = re.search(rf"^(#+) {re.escape(title)}\n", PAGE, re.MULTILINE)
    assert match, title
    end = re.search(rf"^#{{1,{len(match[1])}}} ", PAGE[match.end() :], re.MULTILINE)
    return PAGE[match.end() :][: end.start() if end else None]


def _rows(title: str) -> list[list[str]]:
    """The rows of a section's tables, heads left out."""
    lines = [line for line in _section(title).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    heads = [i for i, row in enumerate(cells) if set("".join(row)) <= set("-: ")]
    return [row for i, row in enumerate(cells) if i not in heads and i + 1 not in heads]


def _code(cell: str) -> str:
    """What a cell shows as code; empty where there is none."""
    match = re.search(r"`([^`]+)`", cell)
    return match[1] if match else ""


def _fields(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field without fields of its own: its path, and its default or None."""
    if "properties" in schema:
        for name, inner in schema["properties"].items():
            yield from _fields(inner, f"{path}.{name}" if path else name)
    elif "properties" in schema.get("items", {}) and path != "conditions":
        yield from _fields(schema["items"], f"{path}[]")
    else:
        yield path, schema.get("default")


SPEC = dict(_fields(SCHEMA["spec"]))
SPEC_ROWS = {_code(row[0]): row for row in _rows("PacketCapture")}


def test_every_field_of_the_spec_has_a_row() -> None:
    assert set(SPEC_ROWS) == set(SPEC)


@pytest.mark.parametrize("field", [f for f, default in SPEC.items() if default is not None])
def test_defaults_are_those_of_the_crd(field: str) -> None:
    default = SPEC[field]
    shown = default if isinstance(default, str) else json.dumps(default)
    assert _code(SPEC_ROWS[field][2]) == shown


@pytest.mark.parametrize("field", SPEC_ROWS)
def test_examples_of_fields_are_accepted(field: str) -> None:
    spec = yaml.safe_load(_code(SPEC_ROWS[field][3]))
    top = re.split(r"[.\[]", field)[0]
    assert top in spec
    capture = {
        "apiVersion": "nightcap.dev/v1alpha1",
        "metadata": {"name": "x", "namespace": "y", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    }
    resolve(parse_capture(json.dumps(capture, default=lambda at: at.isoformat()).encode()))


def test_every_field_of_the_status_is_named() -> None:
    named = {code for row in _rows("Status") for code in re.findall(r"`([^`]+)`", row[0])}
    assert named == {path for path, _ in _fields(SCHEMA["status"])}


def test_every_label_and_annotation_has_a_row() -> None:
    assert {_code(row[0]) for row in _rows("Labels")} == {keys.INJECT, keys.SOURCE}
    assert {_code(row[0]) for row in _rows("Annotations")} == {keys.CAPTURE, *keys.OPTIONS}
    for own in (keys.ORDERS, keys.INJECTED):
        assert f"`{own}`" in _section("Annotations")


def test_examples_and_defaults_of_annotations_are_accepted() -> None:
    on = {keys.CAPTURE: keys.CAPTURE_ON}
    plain = parse_options(on)
    for row in _rows("Annotations"):
        key, _, value = _code(row[3]).partition("=")
        assert key == _code(row[0])
        options, faults = parse_options({**on, key: value})
        assert options is not None, faults
        if default := _code(row[2]):
            assert parse_options({**on, key: default}) == plain


class _Asked(dict[str, str]):
    """An environment that remembers what was asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.names.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> str:
        self.names.add(key)
        return super().__getitem__(key)


_REQUIRED = {"webhook": {"NIGHTCAP_SIDECAR_IMAGE": "registry/sidecar:1"}}
PROGRAMS: dict[str, Callable[[Mapping[str, str]], object]] = {
    "webhook": WebhookSettings.from_environ,
    "controller": ControllerSettings.from_environ,
    "retrieval collector": lambda environ: RetrievalSettings.from_environ(environ, "collector"),
    "retrieval files": lambda environ: RetrievalSettings.from_environ(environ, "files"),
    "gateway": GatewaySettings.from_environ,
    "sidecar": SidecarSettings.from_environ,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_setting_of_a_program_has_a_row(program: str) -> None:
    environ = _Asked(_REQUIRED.get(program, {}))
    PROGRAMS[program](environ)
    named = {name for row in _rows(program) for name in re.findall(r"`([^`]+)`", row[0])}
    asked = {name for name in environ.names if name.startswith("NIGHTCAP_")}
    if program == "sidecar":
        source = (ROOT / "sidecar" / "dormant.c").read_text()
        asked |= set(re.findall(r'"(NIGHTCAP_[A-Z_]+)"', source))
    assert named == asked


@pytest.mark.parametrize("program", PROGRAMS)
def test_settings_have_the_defaults_and_examples_of_the_page(program: str) -> None:
    required = _REQUIRED.get(program, {})
    plain = PROGRAMS[program](required)
    for row in _rows(program):
        name, default, example = _code(row[0]), _code(row[2]), _code(row[3])
        if default:
            assert PROGRAMS[program]({**required, name: default}) == plain, name
        assert PROGRAMS[program]({**required, name: example})


def test_every_make_variable_of_the_page_is_read() -> None:
    read = "".join(
        (ROOT / name).read_text()
        for name in ("Makefile", "demo/installation.py", "demo/stage.py", "tests/cluster/paths.py")
    )
    for row in _rows("make"):
        for name in re.findall(r"`([A-Z_]+)`", row[0]):
            assert name in read
