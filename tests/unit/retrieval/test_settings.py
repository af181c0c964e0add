from pathlib import Path

import pytest

from retrieval.settings import BadSettings, Settings


def test_defaults() -> None:
    collector = Settings.from_environ({}, "collector")
    assert (collector.port, collector.metrics_port) == (20443, 9090)
    assert collector.store == Path("/var/lib/nightcap")
    files = Settings.from_environ({"NIGHTCAP_FILES_PORT": "9443"}, "files")
    assert (files.port, files.metrics_port) == (9443, 9091)


def test_every_fault_is_named_at_once() -> None:
    environ = {
        "NIGHTCAP_STORE": "store",
        "NIGHTCAP_TLS_DIR": "tls",
        "NIGHTCAP_COLLECTOR_PORT": "0",
        "NIGHTCAP_METRICS_PORT": "many",
        "NIGHTCAP_NAMESPACE": "",
    }
    with pytest.raises(BadSettings) as refused:
        Settings.from_environ(environ, "collector")
    for variable in environ:
        assert variable in str(refused.value)
