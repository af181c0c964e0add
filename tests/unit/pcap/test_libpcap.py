import pytest

from nightcap.pcap.libpcap import FilterError, compile_filter

IEEE802_11 = 105


@pytest.mark.parametrize(
    "expression",
    ["", "udp port 53", "tcp[tcpflags] & tcp-syn != 0", "vlan and ip6", "host 10.0.0.1 or ::1"],
)
def test_filters_compile(expression: str) -> None:
    compile_filter(expression)


def test_a_filter_is_judged_for_its_link_type() -> None:
    compile_filter("type mgt", linktype=IEEE802_11)
    with pytest.raises(FilterError, match=r"802\.11"):
        compile_filter("type mgt")


@pytest.mark.parametrize("expression", ["udp port port", "(", ") or (", "udp port 99999999", "\0"])
def test_what_does_not_compile_is_refused_in_words(expression: str) -> None:
    with pytest.raises(FilterError, match=r"\w+ \w+"):
        compile_filter(expression)


def test_a_program_that_is_too_long_is_refused() -> None:
    sum_of_bytes = "+".join(f"tcp[{number % 60}]" for number in range(1000))
    with pytest.raises(FilterError, match="at most 4096"):
        compile_filter(f"{sum_of_bytes}=0")
