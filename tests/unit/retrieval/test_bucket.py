"""A bucket: credentials, roots, stores that lack something, and audit records in one."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.issue import new_leaf, new_root
from retrieval.audit import Access, Auditor, Ended
from retrieval.store.base import (
    StoreFailed,
)
from retrieval.store.bucket import Bucket
from retrieval.store.objects_writing import ObjectStore
from retrieval.store.opening import open_record
from tests.unit.retrieval.builders import CAPTURE, STREAM
from tests.unit.retrieval.s3 import BUCKET, S3Server


@pytest.fixture
def strangers(s3_server: S3Server) -> Iterator[Bucket]:
    return Bucket(
        f"s3://{BUCKET}/x",
        {"endpoint": s3_server.endpoint, "access_key_id": "stranger",
         "secret_access_key": "unknown", "region": "us-east-1"},
    )  # fmt: skip


def test_who_may_not_is_told_what_and_no_credential(strangers: Bucket) -> None:
    with pytest.raises(
        StoreFailed, match=r"put s3://captures/x/check-.*: XAdminUserNotFound"
    ) as no:
        ObjectStore(strangers).check()
    assert "unknown" not in str(no.value)


def test_a_bucket_that_is_not_there_is_no_empty_store(s3_server: S3Server) -> None:
    store = ObjectStore(s3_server.bucket("s3://nowhere/x"))
    with pytest.raises(StoreFailed, match="NoSuchBucket"):
        store.has_stream(STREAM)
    with pytest.raises(StoreFailed, match="NoSuchBucket"):
        list(store.captures())


def test_a_store_that_ignores_create_only_is_not_used() -> None:
    class Careless(Bucket):
        """As `rclone serve s3` is: a put is a put."""

        def create(self, path: str, body: bytes) -> bool:
            return True

        def get(self, path: str) -> tuple[bytes, dict[str, str]]:
            return b"2", {}

        def folders(self, folder: str) -> tuple[str, ...]:
            return ()

        def delete(self, paths: object) -> None: ...

    with pytest.raises(StoreFailed, match="overwrites an object"):
        ObjectStore(Careless("s3://captures/x")).check()


def test_a_private_root_is_trusted_when_it_is_named_and_not_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_root(1, time.time())
    leaf = new_leaf(root, ["127.0.0.1"], time.time())
    (tmp_path / "tls.crt").write_text(leaf.certificate)
    (tmp_path / "tls.key").write_text(leaf.key)
    (tmp_path / "ca.crt").write_text(root.certificate)
    server = S3Server(tmp_path, tls=(tmp_path / "tls.crt", tmp_path / "tls.key"))
    try:
        with pytest.raises(StoreFailed):
            server.bucket().create("x", b"1")
        monkeypatch.setenv("NIGHTCAP_STORE_CA", str(tmp_path / "ca.crt"))
        assert server.bucket().create("x", b"1")
        monkeypatch.setenv("NIGHTCAP_STORE_CA", str(tmp_path / "absent.crt"))
        with pytest.raises(StoreFailed, match="cannot be used"):
            server.bucket().create("x", b"1")
    finally:
        server.stop()


def test_audit_records_are_objects_that_are_created_and_nothing_else(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environ.items():
        monkeypatch.setenv(name, value)
    url, lines = s3_server.new_url(), []
    auditor = Auditor(lines.append, open_record(url))
    who = Access("get", "ann", (), "storefront", "dns", CAPTURE, "files.zip", "192.0.2.1")
    for sent_bytes in (1, 2):
        auditor.record(who, status=200, sent_bytes=sent_bytes, ended=Ended.COMPLETE)
    bucket = s3_server.bucket(url)
    found = sorted(each.path for each in bucket.list(""))
    assert [bucket.get(path)[0].decode() for path in found] == lines
    assert all(re.fullmatch(r"\d{4}/\d\d/\d\d/\d{6}\.\d{6}-[0-9a-f]{8}\.json", p) for p in found)
    assert open_record("") is None


def test_a_record_that_the_store_does_not_take_is_in_the_log_all_the_same(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in s3_server.environ.items():
        monkeypatch.setenv(name, value)
    lines: list[str] = []
    auditor = Auditor(lines.append, open_record("s3://nowhere/audit"))
    who = Access("get", "ann", (), "storefront", "dns", CAPTURE, "files.zip", "192.0.2.1")
    auditor.record(who, status=200, sent_bytes=1, ended=Ended.COMPLETE)
    assert len(lines) == 1
    assert "audit record not kept" in caplog.text
