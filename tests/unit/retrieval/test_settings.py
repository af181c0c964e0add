import pytest

from retrieval.settings import BadSettings, Settings
from retrieval.store.location import location_fault


def test_defaults() -> None:
    collector = Settings.from_environ({}, "collector")
    assert (collector.port, collector.metrics_port) == (20443, 9090)
    assert (collector.store, collector.audit) == ("/var/lib/nightcap", "")
    assert collector.store_limit_bytes == 0
    limited = Settings.from_environ({"NIGHTCAP_STORE_LIMIT": "500Gi"}, "collector")
    assert limited.store_limit_bytes == 500 * 2**30
    files = Settings.from_environ({"NIGHTCAP_FILES_PORT": "9443"}, "files")
    assert (files.port, files.metrics_port) == (9443, 9091)


def test_every_fault_is_named_at_once() -> None:
    environ = {
        "NIGHTCAP_STORE": "store",
        "NIGHTCAP_AUDIT_STORE": "/var/log/nightcap",
        "NIGHTCAP_STORE_LIMIT": "much",
        "NIGHTCAP_TLS_DIR": "tls",
        "NIGHTCAP_COLLECTOR_PORT": "0",
        "NIGHTCAP_METRICS_PORT": "many",
        "NIGHTCAP_NAMESPACE": "",
    }
    with pytest.raises(BadSettings) as refused:
        Settings.from_environ(environ, "collector")
    for variable in environ:
        assert variable in str(refused.value)


@pytest.mark.parametrize(
    ("location", "fault"),
    [
        ("/var/lib/nightcap", None),
        ("s3://captures", None),
        ("s3://captures/eu/prod/", None),
        ("gs://captures/eu", None),
        ("az://captures", None),
        ("var/lib", "absolute path"),
        ("https://captures", "must begin with one of s3://"),
        ("s3://", "SCHEME://BUCKET"),
        ("s3://key:secret@captures/x", "credentials are not part"),
        ("s3://captures/x?region=y", "SCHEME://BUCKET"),
        ("s3://captures//x", "empty part"),
        ("s3://captures/../x", "empty part"),
    ],
)
def test_a_store_is_a_folder_or_a_url(location: str, fault: str | None) -> None:
    found = location_fault(location)
    assert found is None if fault is None else fault in str(found)
