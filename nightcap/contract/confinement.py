"""What a container that captures may do: the one securityContext of sidecar and `attach`. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final


class Level(StrEnum):
    """A namespace's Pod Security level (its `enforce` label; none counts as privileged)."""

    PRIVILEGED = "privileged"
    BASELINE = "baseline"
    RESTRICTED = "restricted"


class Profile(StrEnum):
    """What a capturing container asks of Pod Security.

    Either leaves it NET_RAW alone: `strict` says so, which baseline forbids; `baseline`
    adds nothing and drops by name whatever else the runtime gives.
    """

    STRICT = "strict"
    BASELINE = "baseline"


PROFILES: Final[Mapping[Level, Profile]] = MappingProxyType(
    {Level.PRIVILEGED: Profile.STRICT, Level.BASELINE: Profile.BASELINE}
)
"""No entry for `restricted`: it allows neither root nor NET_RAW, and a capture needs both."""

# containerd's defaultUnixCaps (oci/spec.go) without NET_RAW.
_OTHER_DEFAULT_CAPABILITIES: Final = (
    "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE "
    "SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
).split()

CAPABILITIES: Final[Mapping[Profile, dict[str, list[str]]]] = MappingProxyType(
    {
        Profile.STRICT: {"drop": ["ALL"], "add": ["NET_RAW"]},
        Profile.BASELINE: {"drop": list(_OTHER_DEFAULT_CAPABILITIES)},
    }
)


def security_context(profile: Profile, *, confine: bool) -> dict[str, Any]:
    """The container's securityContext, all of it said, so that nothing of the pod's leaks in.

    Root, because a process that is not gets NET_RAW into its bounding set only.

    Args:
        profile: Which capabilities are said.
        confine: Ask for the runtime's AppArmor profile. Only for pods that bring one of
            their own: a node without AppArmor refuses every pod that names a profile.
    """
    context: dict[str, Any] = {
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": False,
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": CAPABILITIES[profile],
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if confine:
        context["appArmorProfile"] = {"type": "RuntimeDefault"}
    return context


def brings_apparmor(security_context: Any) -> bool:
    """Whether a pod's securityContext has a profile made for its application, not for ours."""
    profile = security_context.get("appArmorProfile") if isinstance(security_context, dict) else {}
    return isinstance(profile, dict) and profile.get("type") == "Localhost"
