import pytest

from nightcap.contract.uploads import BadUploadPath, SegmentName, parse_upload_path, upload_path


@pytest.mark.parametrize("interface", ["eth0", "any", "br-1@x", "ä0", "a.b", "meta.json"])
def test_a_path_is_read_as_it_was_written(interface: str) -> None:
    segment = SegmentName("0a-1b", interface, 7)
    assert parse_upload_path(upload_path(segment)) == segment


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/v1/captures/abc/eth0",
        "/v1/captures/abc/eth0/",
        "/v1/captures/abc/eth0/x",
        "/v1/captures/abc/eth0/123456789",
        "/v1/captures/abc/eth0/1/",
        "/v1/captures/abc/eth0/1/../2",
        "/v1/captures/../eth0/1",
        "/v1/captures/abc/../1",
        "/v1/captures/abc/%2e%2e/1",
        "/v1/captures/abc/..%2f..%2fetc/1",
        "/v1/captures/ABC/eth0/1",
        "/v1/captures/abc-/eth0/1",
        "/v1/captures/abc/%ff/1",
        "/v1/captures/abc/%00/1",
        "/v1/captures/abc/eth0 /1",
        "/v1/captures/abc/eth0%0a/1",
    ],
)
def test_a_path_that_names_no_segment_is_refused(path: str) -> None:
    with pytest.raises(BadUploadPath):
        parse_upload_path(path)
