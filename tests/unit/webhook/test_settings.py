from pathlib import Path

import pytest

import nightcap
from webhook.settings import BadSettings, Settings

IMAGE = {"NIGHTCAP_SIDECAR_IMAGE": "registry.local/nightcap/sidecar:1"}


def test_everything_but_the_image_has_a_default():
    settings = Settings.from_environ(IMAGE)
    assert settings.namespace == "nightcap-system"
    assert settings.listen_port == 8443
    assert settings.metrics_port == 9090
    assert settings.spool_bytes == (256 - 32) * 2**20
    assert settings.sizes.ephemeral_limit == "256Mi"
    assert settings.wait == "3s"
    assert settings.release == nightcap.__version__


def test_what_is_set_holds():
    settings = Settings.from_environ(
        {
            **IMAGE,
            "NIGHTCAP_NAMESPACE": "tools",
            "NIGHTCAP_TLS_DIR": "/run/tls",
            "NIGHTCAP_SPOOL_SIZE": "1Gi",
            "NIGHTCAP_WAIT": "",
            "NIGHTCAP_GUARANTEED_CPU": "100m",
            "NIGHTCAP_MEMORY_LIMIT": "128Mi",
        }
    )
    assert settings.namespace == "tools"
    assert settings.tls_dir == Path("/run/tls")
    assert settings.spool_bytes == 2**30 - 32 * 2**20
    assert settings.wait == ""
    assert settings.sizes.guaranteed_cpu == "100m"
    assert settings.sizes.memory_limit == "128Mi"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPOOL_SIZE", "lots"),
        ("SPOOL_SIZE", "32Mi"),
        ("WAIT", "3"),
        ("WAIT", "1h"),
        ("LISTEN_PORT", "0"),
        ("LISTEN_PORT", "https"),
        ("METRICS_PORT", "70000"),
        ("GUARANTEED_CPU", "0"),
        ("GUARANTEED_CPU", ""),
        ("GUARANTEED_CPU", "9m"),
        ("GUARANTEED_MEMORY", "big"),
        ("GUARANTEED_MEMORY", "23Mi"),
        ("MEMORY_LIMIT", "-1"),
        ("MEMORY_LIMIT", "16Mi"),
    ],
)
def test_a_bad_value_is_refused_with_its_name(name, value):
    with pytest.raises(BadSettings, match=f"NIGHTCAP_{name} is '{value}'"):
        Settings.from_environ({**IMAGE, f"NIGHTCAP_{name}": value})


def test_all_faults_are_told_at_once():
    with pytest.raises(BadSettings) as refused:
        Settings.from_environ({"NIGHTCAP_WAIT": "x", "NIGHTCAP_LISTEN_PORT": "x"})
    text = str(refused.value)
    assert all(name in text for name in ("SIDECAR_IMAGE", "WAIT", "LISTEN_PORT"))
