from pathlib import Path

import pytest

from controller.injection import Patience
from controller.settings import BadSettings, Settings


def test_every_setting_has_a_default():
    settings = Settings.from_environ({})
    assert (settings.namespace, settings.metrics_port) == ("nightcap-system", 9090)
    assert settings.token_file.is_absolute()


def test_settings_are_read():
    settings = Settings.from_environ(
        {
            "NIGHTCAP_NAMESPACE": "captures",
            "NIGHTCAP_METRICS_PORT": "9999",
            "NIGHTCAP_TOKEN_FILE": "/tmp/token",  # noqa: S108
        }
    )
    assert settings == Settings("captures", 9999, Path("/tmp/token"))  # noqa: S108


def test_all_faults_are_in_one_message():
    environ = {"NIGHTCAP_NAMESPACE": "a/b", "NIGHTCAP_METRICS_PORT": "seventy"}
    with pytest.raises(BadSettings, match=r"'a/b'.*'seventy'"):
        Settings.from_environ(environ)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "", "\uff19\uff10"])
def test_a_port_must_be_one(port):
    with pytest.raises(BadSettings, match="NIGHTCAP_METRICS_PORT"):
        Settings.from_environ({"NIGHTCAP_METRICS_PORT": port})


def test_patience_with_pods_that_wait_is_a_setting():
    environ = {"NIGHTCAP_MOST_HELD_PODS": "0", "NIGHTCAP_HELD_SECONDS": "5"}
    assert Settings.from_environ(environ).patience == Patience(most_pods=0, seconds=5)
    with pytest.raises(BadSettings, match=r"NIGHTCAP_HELD_SECONDS: '-1' must be a whole number"):
        Settings.from_environ({"NIGHTCAP_HELD_SECONDS": "-1"})
