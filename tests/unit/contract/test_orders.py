import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightcap.contract.orders import (
    MAX_CAPTURES,
    MAX_ORDERS_BYTES,
    BadOrders,
    CaptureOrder,
    Limit,
    Orders,
    Rotation,
    dump_orders,
    is_interface,
    parse_orders,
)

ENTRY = {"id": "ab-12", "until": 1764555600}

_text = st.text(max_size=40)
_orders = st.builds(
    Orders,
    collectors=st.lists(
        st.tuples(st.ip_addresses().map(lambda address: str(address)), st.integers(1, 65535)),
        max_size=4,
    ).map(tuple),
    captures=st.lists(
        st.builds(
            CaptureOrder,
            id=st.from_regex(r"\A[0-9a-f]([0-9a-f-]{0,40}[0-9a-f])?\Z"),
            namespace=_text,
            name=_text,
            until=st.integers(0, 2**53),
            filter=_text,
            snap=st.integers(1, 262144),
            interfaces=st.lists(
                st.sampled_from(["eth0", "any", "net1"]), unique=True, max_size=3
            ).map(tuple),
            rotation=st.builds(
                Rotation,
                max_bytes=st.integers(4096, 2**40),
                max_seconds=st.floats(0.1, 10**9),
                max_files=st.integers(1, 10**6),
            ),
            limit=st.builds(Limit, bytes=st.integers(0, 2**60), packets=st.integers(0, 2**60)),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda entry: entry.id,
    ).map(tuple),
    refused=st.just(()),
)


def wrap(*entries, **more):
    return json.dumps({"v": 1, "collectors": [], "captures": list(entries), **more})


@given(_orders)
def test_what_is_written_is_read_back_and_is_one_line(orders):
    text = dump_orders(orders)
    assert "\n" not in text
    assert text.isascii()
    assert parse_orders(text) == orders


def test_nothing_to_do_is_the_empty_text():
    assert dump_orders(Orders((("10.0.0.1", 1),))) == ""
    assert parse_orders("") == parse_orders(" \n") == Orders()


def test_the_form_is_the_one_of_the_design():
    orders = Orders(
        (("10.96.0.9", 20443), ("fd00::9", 20443)),
        (CaptureOrder("ab", "shop", "dns", 5, "udp port 53"),),
    )
    assert json.loads(dump_orders(orders)) == {
        "v": 1,
        "collectors": ["10.96.0.9:20443", "[fd00::9]:20443"],
        "captures": [
            {
                "id": "ab",
                "namespace": "shop",
                "name": "dns",
                "filter": "udp port 53",
                "snap": 262144,
                "interfaces": [],
                "rotate": {"bytes": 10485760, "seconds": 3600, "files": 10},
                "limit": {"bytes": 1073741824, "packets": 0},
                "until": 5,
            }
        ],
    }


def test_fields_of_a_later_release_are_passed_over():
    orders = parse_orders(wrap({**ENTRY, "colour": "red"}, shape=[1]))
    assert [entry.id for entry in orders.captures] == ["ab-12"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "bytes"),
        ("[" * 60_000, "not JSON"),
        ("[]", "list"),
        ("null", "NoneType"),
        ('{"v":2,"captures":[]}', "version 2"),
        ('{"captures":[]}', "version None"),
        ('{"v":1}', "captures"),
        ('{"v":1,"captures":{}}', "captures"),
        ('{"v":1,"captures":[],"collectors":"x"}', "collectors"),
        (wrap(*[ENTRY] * (MAX_CAPTURES + 1)), str(MAX_CAPTURES)),
        (" " + "x" * MAX_ORDERS_BYTES, "bytes"),
    ],
    ids=["cut", "deep and long", "deep", "list", "null", "later", "none", "no captures",
         "captures", "collectors", "too many", "too long"],
)  # fmt: skip
def test_orders_that_cannot_be_read_are_refused_with_the_reason(text, says):
    with pytest.raises(BadOrders, match=says):
        parse_orders(text)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "../etc"}, "id"),
        ({"id": "AB"}, "id"),
        ({"id": ""}, "id"),
        ({"id": 5}, "id"),
        ({"until": -1}, "until"),
        ({"until": "soon"}, "until"),
        ({"until": True}, "until"),
        ({"until": 1.5}, "until"),
        ({"filter": "x" * 1025}, "filter"),
        ({"snap": 0}, "snap"),
        ({"interfaces": ["../x"]}, "interfaces"),
        ({"interfaces": "eth0"}, "interfaces"),
        ({"rotate": {"bytes": 1}}, "bytes"),
        ({"rotate": []}, "rotate"),
        ({"rotate": {"seconds": 0}}, "seconds"),
        ({"limit": {"packets": -1}}, "packets"),
    ],
)
def test_one_bad_entry_is_refused_and_the_others_stand(change, says):
    orders = parse_orders(wrap({**ENTRY, **change}, {**ENTRY, "id": "cd"}))
    assert [entry.id for entry in orders.captures] == ["cd"]
    ((_, reason),) = orders.refused
    assert says in reason


def test_an_entry_that_is_no_object_is_refused():
    assert len(parse_orders(wrap(5, ENTRY)).refused) == 1


@pytest.mark.parametrize(
    "address", ["example.com:1", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:65536", 5, "[fd00::9]"]
)
def test_a_collector_that_is_no_address_is_passed_over(address):
    orders = parse_orders(wrap(ENTRY, collectors=[address, "10.0.0.2:2"]))
    assert orders.collectors == (("10.0.0.2", 2),)


def test_an_id_that_comes_twice_counts_once():
    assert len(parse_orders(wrap(ENTRY, ENTRY)).captures) == 1


@pytest.mark.parametrize("name", ["eth0", "any", "a@b", "x" * 15, "...", "ü"])
def test_names_of_interfaces(name):
    assert is_interface(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "x" * 16, "a:b", "a%b", "a\0", "\n"])
def test_what_the_kernel_would_not_have_is_no_name_of_an_interface(name):
    assert not is_interface(name)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from([*ENTRY, "rotate", "limit", "filter"]),
                                      inner, max_size=4), max_leaves=12))  # fmt: skip
def test_whatever_json_an_entry_is_nothing_but_bad_orders_comes_of_it(value):
    orders = parse_orders(wrap(value, ENTRY))
    assert len(orders.captures) + len(orders.refused) in (1, 2)
