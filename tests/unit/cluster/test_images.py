import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.cluster.errors import ClusterError
from tests.cluster.images import (
    PROJECT_IMAGES,
    archives_to_remove,
    image_archive,
    image_reference,
    pip_configuration,
)
from tests.cluster.node_images import single_program_archive

SIDECAR = next(image for image in PROJECT_IMAGES if image.name == "sidecar")
CONTROL = next(image for image in PROJECT_IMAGES if image.name == "control")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in (
        "Dockerfile",
        ".dockerignore",
        "requirements/control.txt",
        "nightcap/__init__.py",
        "nightcap/contract/orders.py",
        "nightcap/pcap/handle.py",
        "nightcap/kube/client.py",
        "certs/a.py",
        "webhook/a.py",
        "controller/a.py",
        "retrieval/a.py",
        "sidecar/a.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "control_changes", "sidecar_changes"),
    [
        ("sidecar/a.py", False, True),
        ("webhook/a.py", True, False),
        ("nightcap/kube/client.py", True, False),
        ("nightcap/pcap/handle.py", True, True),
        ("Dockerfile", True, True),
        ("requirements/control.txt", True, False),
        ("webhook/__pycache__/a.cpython-311.pyc", False, False),
        ("README.md", False, False),
    ],
)
def test_an_image_is_a_new_one_exactly_when_its_sources_change(
    project: Path, changed: str, control_changes: bool, sidecar_changes: bool
) -> None:
    before = [image_reference(image, project) for image in (CONTROL, SIDECAR)]
    (project / changed).parent.mkdir(exist_ok=True)
    (project / changed).write_text("changed")
    after = [image_reference(image, project) for image in (CONTROL, SIDECAR)]
    assert [a != b for a, b in zip(after, before, strict=True)] == [
        control_changes,
        sidecar_changes,
    ]


def test_a_missing_source_is_named(project: Path) -> None:
    (project / "sidecar/a.py").unlink()
    (project / "sidecar").rmdir()
    with pytest.raises(ClusterError, match="image sidecar is built from sidecar, which"):
        image_reference(SIDECAR, project)


def test_the_archives_name_comes_from_the_images() -> None:
    archive = image_archive("registry.local/nightcap-control:0123456789ab")
    assert archive.name == "nightcap-control-0123456789ab.tar"


def test_the_newest_archives_of_each_image_stay() -> None:
    files = {Path(f"nightcap-control-{n}.tar"): float(n) for n in range(4)}
    files[Path("nightcap-sidecar-a.tar")] = 0.0
    assert archives_to_remove(files, kept=2) == [
        Path("nightcap-control-0.tar"),
        Path("nightcap-control-1.tar"),
    ]


def test_pips_settings_go_into_the_build_and_paths_of_this_machine_do_not() -> None:
    listing = "\n".join(
        [
            ":env:.find-links='/opt/wheels'",
            "global.cert='/etc/ssl/certs/of-the-machine.crt'",
            "global.index-url='https://index.example/simple'",
            ":env:.default-timeout='180'",
            "install.trusted-host='a.example\\nb.example'",
        ]
    )
    written = pip_configuration(listing, "/run/secrets/ca")
    assert written.split() == [
        "[global]",
        *("cert", "=", "/run/secrets/ca"),
        *("index-url", "=", "https://index.example/simple"),
        *("trusted-host", "=", "a.example", "b.example"),
    ]
    assert "cert" not in pip_configuration("", "")


def test_the_pause_archive_is_one_image_with_one_program() -> None:
    archive = single_program_archive("registry.local/pause:1", b"\x7fELF")
    assert archive == single_program_archive("registry.local/pause:1", b"\x7fELF")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (image,) = json.loads(_content(tar, "manifest.json"))
        assert image["RepoTags"] == ["registry.local/pause:1"]
        assert json.loads(_content(tar, image["Config"]))["config"]["Entrypoint"] == ["/pause"]
        with tarfile.open(fileobj=io.BytesIO(_content(tar, "layer.tar"))) as layer:
            assert layer.getmember("pause").mode == 0o755


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()
