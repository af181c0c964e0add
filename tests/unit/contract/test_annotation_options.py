import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.contract import keys
from nightcap.contract.annotation_options import (
    AnnotationOptions,
    parse_options,
    spec_of_options,
)
from nightcap.contract.captures import BadCapture, parse_capture, resolve

ON = {keys.CAPTURE: "on"}


def test_nothing_is_asked_for_without_the_annotation():
    assert parse_options(None) == (None, ())
    assert parse_options({keys.DURATION: "x", "other": "y"}) == (None, ())


def test_on_alone_means_all_defaults():
    options, faults = parse_options(ON)
    assert faults == ()
    assert options == AnnotationOptions(
        on=True,
        filter="",
        duration="1h",
        snap_length=262144,
        max_file_size="10Mi",
        rotate_every="1h",
        max_files=10,
    )


def test_off_needs_no_well_written_options():
    options, faults = parse_options({keys.CAPTURE: "off", keys.DURATION: "x"})
    assert options is not None
    assert (options.on, faults) == (False, ())


def test_options_are_kept_as_they_were_written():
    options, faults = parse_options(
        {
            **ON,
            keys.FILTER: " udp port 53 ",
            keys.DURATION: "1h30m",
            keys.SNAP_LENGTH: "96",
            keys.MAX_FILE_SIZE: "4Ki",
            keys.ROTATE_EVERY: "90s",
            keys.MAX_FILES: "3",
            "example.com/note": "kept out",
        }
    )
    assert faults == ()
    assert options is not None
    assert spec_of_options(options) == {
        "filter": "udp port 53",
        "duration": "1h30m",
        "snapLength": 96,
        "rotation": {"maxFileSize": "4Ki", "maxFileAge": "90s", "maxFiles": 3},
    }


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (keys.CAPTURE, "On", "must be on or off"),
        (keys.CAPTURE, "", "must be on or off"),
        (keys.CAPTURE, "true", "must be on or off"),
        (keys.FILTER, "host example", "not looked up"),
        (keys.FILTER, "x" * 2000, "at most 1024"),
        (keys.DURATION, "-5m", "positive number with a unit"),
        (keys.DURATION, "5", "with a unit"),
        (keys.DURATION, "", "with a unit"),
        (keys.DURATION, "0s", "more than 0"),
        (keys.DURATION, "9000d", "at most 366d"),
        (keys.SNAP_LENGTH, "0", "from 1 to 262144"),
        (keys.SNAP_LENGTH, "-1", "from 1 to 262144"),
        (keys.SNAP_LENGTH, "1.5", "from 1 to 262144"),
        (keys.SNAP_LENGTH, "9" * 5000, "from 1 to 262144"),
        (keys.SNAP_LENGTH, "\uff11", "from 1 to 262144"),
        (keys.MAX_FILE_SIZE, "1", "must be from 4096"),
        (keys.MAX_FILE_SIZE, "-1Mi", "positive number"),
        (keys.MAX_FILE_SIZE, "big", "positive number"),
        (keys.ROTATE_EVERY, "10ms", "at least 1s"),
        (keys.ROTATE_EVERY, "hourly", "with a unit"),
        (keys.MAX_FILES, "0", "from 1 to 10000"),
        (keys.MAX_FILES, "many", "from 1 to 10000"),
        ("nightcap.dev/durration", "5m", "'nightcap.dev/durration' is no annotation"),
    ],
)
def test_a_bad_value_is_quoted_with_its_key_and_the_rule(key, value, says):
    options, faults = parse_options({**ON, key: value})
    assert options is None
    (fault,) = faults
    assert key in fault
    assert says in fault
    assert len(fault) < 400
    if key not in (keys.FILTER, "nightcap.dev/durration"):
        assert repr(value[:40])[1:-1] in fault


def test_all_faults_come_at_once():
    _, faults = parse_options({keys.CAPTURE: "yes", keys.DURATION: "x", keys.MAX_FILES: "x"})
    assert len(faults) == 3


def test_annotations_that_nightcap_itself_writes_are_no_faults():
    others = {keys.ORDERS: "{}", keys.INJECTED: "{}"}
    assert parse_options({**ON, **others})[1] == ()


def test_every_key_of_the_contract_is_known_here():
    """A key that is added to `keys` must not make older annotations a fault."""
    ours = {
        value: "x"
        for name, value in vars(keys).items()
        if name.isupper() and isinstance(value, str) and value.startswith("nightcap.dev/")
    }
    _, faults = parse_options({**ours, **ON})
    assert not any("is no annotation" in fault for fault in faults)


_values = st.sampled_from(
    ["", "5m", "1s", "0.5s", "-1", "0", "1", "96", "262145", "4Ki", "1Ti", "2Ti", "udp", "host x"]
) | st.text(max_size=20)


@given(st.dictionaries(st.sampled_from(keys.OPTIONS), _values))
def test_what_is_accepted_makes_a_capture_that_is_accepted(options):
    """The same rules hold for annotations and objects: no capture is made with a bad spec."""
    parsed, faults = parse_options({**ON, **options})
    assert (parsed is None) is bool(faults)
    if parsed is None:
        return
    metadata = {"name": "x", "namespace": "y", "uid": "ab"}
    raw = json.dumps({"metadata": metadata, "spec": spec_of_options(parsed)}).encode()
    try:
        resolve(parse_capture(raw))
    except BadCapture as error:
        pytest.fail(f"{options} became a bad capture: {error}")
