import pytest

from nightcap.contract.objects import ConfigMap
from nightcap.contract.switch import is_off, switched_off, why_off


@pytest.mark.parametrize(
    ("data", "off"),
    [
        ({"injection": "off"}, True),
        ({"injection": " OFF\n"}, True),
        (switched_off("pods wait", "2026-11-22T02:00:00Z"), True),
        ({"injection": "on"}, False),
        ({"injection": "nonsense"}, False),
        ({}, False),
        (None, False),
    ],
)
def test_only_the_word_off_switches_injection_off(data, off):
    assert is_off(ConfigMap(data=data)) is off
    assert bool(why_off(ConfigMap(data=data))) is off


def test_a_switch_that_is_not_there_is_on():
    assert not is_off(None)
    assert why_off(None) == ""


def test_the_reason_is_the_one_that_was_given():
    assert why_off(ConfigMap(data=switched_off("pods wait", "now"))) == "pods wait"
    assert why_off(ConfigMap(data={"injection": "off"})) == "somebody switched it off"
