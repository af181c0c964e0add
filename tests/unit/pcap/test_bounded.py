import sys
import time

import pytest

from nightcap.pcap.bounded import Undecided, check_filter, find_too_costly


def test_a_good_filter_has_no_fault() -> None:
    assert check_filter("udp port 53", timeout=5) is None
    assert check_filter("", timeout=5) is None


def test_a_bad_filter_has_libpcaps_words() -> None:
    answer = check_filter("udp port port", timeout=5)
    assert answer is not None
    assert "syntax error" in answer


def test_odd_bytes_are_only_a_bad_filter() -> None:
    for expression in ("\0", "\udcff", "ü", "\n" * 100, "'; echo"):
        answer = check_filter(expression, timeout=5)
        assert answer is None or isinstance(answer, str)


def test_a_helper_that_gives_no_answer_in_time_is_no_fault_of_the_filter() -> None:
    with pytest.raises(Undecided, match="took longer than"):
        check_filter("udp port 53", timeout=0.001)


def test_a_filter_that_eats_memory_or_cpu_is_refused_in_time() -> None:
    monster = " or ".join(f"(host 10.{n // 256}.{n % 256}.1 and port {n})" for n in range(4000))
    begin = time.monotonic()
    assert check_filter(monster, timeout=1.0) is not None
    assert time.monotonic() - begin < 3


def test_only_what_costs_too_much_is_too_costly() -> None:
    assert find_too_costly("udp port 53", 5) is None
    assert find_too_costly("udp port port", 5) is None
    # 4 KiB, so that it is too much for any machine.
    slow = find_too_costly(" or ".join(["portrange 1-9"] * 250), 0.3)
    assert slow is not None
    assert "too much CPU" in slow


def test_whoever_asks_what_a_filter_costs_hears_of_no_answer_too() -> None:
    with pytest.raises(Undecided, match="took longer than"):
        find_too_costly("udp port 53", 5, timeout=0.001)


def test_a_helper_that_cannot_be_started_is_no_fault_of_the_filter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(Undecided, match="could not be checked"):
        check_filter("udp port 53", timeout=5)
