"""What a container may do: security options, capabilities, limits of its processes, devices, kernel parameters.

All of it is checked when the container is made, against the machine and the engine's own rights. What the engine cannot
give is refused where it was asked for by name, and said in a warning where it is part of something larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.containers.model import HostConfig
from holdfast.errors import InvalidParameter, Unsupported
from holdfast.runtime import capabilities
from holdfast.runtime.devices import check_access
from holdfast.runtime.host import HostFacts
from holdfast.runtime.limits import Ulimit, device_rule, rlimit
from holdfast.runtime.seccomp import Profile
from holdfast.runtime.sysctls import check_sysctl

_ON_OR_OFF = {"": True, "true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """What `HostConfig.SecurityOpt` says; `seccomp` is `default`, `builtin`, `unconfined` or a profile's JSON."""

    seccomp: str = "default"
    apparmor: str = ""
    no_new_privileges: bool = False
    writable_cgroups: bool = False


def parse_security_options(options: Sequence[str]) -> SecurityOptions:
    """Parse `HostConfig.SecurityOpt`: `KEY=VALUE`, or `KEY:VALUE` as it once was.

    SELinux labels are accepted and have no effect. Raises InvalidParameter in Docker's words.
    Source: moby, daemon, parseSecurityOpt.
    """
    seccomp, apparmor = "default", ""
    switches = {"no-new-privileges": False, "writable-cgroups": False}
    for option in options:
        key, separator, value = option.partition("=" if "=" in option else ":")
        if key in switches:
            if value.lower() not in _ON_OR_OFF:
                raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
            switches[key] = _ON_OR_OFF[value.lower()]
        elif not separator:
            raise InvalidParameter(f'invalid --security-opt 1: "{option}"')
        elif key == "seccomp":
            seccomp = value
        elif key == "apparmor":
            apparmor = value
        elif key != "label":
            raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
    return SecurityOptions(seccomp, apparmor, switches["no-new-privileges"], switches["writable-cgroups"])


def with_labels(host: HostConfig) -> tuple[str, ...] | None:
    """Give the security options as Docker records them: no SELinux label where the container shares so much."""
    options = host.security_opt
    if any(option.partition("=")[0] == "label" for option in options or ()):
        return options
    if host.privileged or "host" in (host.ipc_mode, host.pid_mode):
        return (*(options or ()), "label=disable")
    return options


def check_security(host: HostConfig, facts: HostFacts) -> tuple[str, ...]:
    """Check what a container may do on this machine; gives warnings. Raises InvalidParameter, Unsupported."""
    warnings: list[str] = []
    _check_options(host, facts, warnings)
    _check_capabilities(host, facts, warnings)
    for name in host.sysctls or {}:
        check_sysctl(name, network=host.network_mode, ipc=host.ipc_mode, uts=host.uts_mode)
    for limit in host.ulimits or ():
        if limit.hard >= 0 and (limit.soft > limit.hard or limit.soft < 0):
            soft = "unlimited" if limit.soft < 0 else limit.soft
            raise InvalidParameter(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {limit.hard}")
        rlimit(Ulimit(limit.name, limit.soft, limit.hard), facts, warnings)
    for device in host.devices or ():
        check_access(device.cgroup_permissions or "rwm")
    for rule in host.device_cgroup_rules or ():
        device_rule(rule)
    _check_device_requests(host)
    if host.oom_score_adj < -1000 or host.oom_score_adj > 1000:
        raise InvalidParameter(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.oom_score_adj and host.oom_score_adj < facts.oom_score_adj and "CAP_SYS_RESOURCE" not in facts.capabilities:
        warnings.append(
            f"The engine may not lower oom_score_adj to {host.oom_score_adj}; "
            f"the container keeps {facts.oom_score_adj}."
        )
    return tuple(warnings)


def _check_options(host: HostConfig, facts: HostFacts, warnings: list[str]) -> None:
    security = parse_security_options(host.security_opt or ())
    if security.seccomp not in ("default", "builtin", "unconfined"):
        Profile(security.seccomp)
    if security.apparmor not in ("", "unconfined") and not facts.apparmor:
        warnings.append(f"This kernel has no AppArmor; the container runs without the profile {security.apparmor}.")


def _check_capabilities(host: HostConfig, facts: HostFacts, warnings: list[str]) -> None:
    """A capability that was asked for by its name must be there; privileged and ALL mean as many as there are."""
    added = capabilities.normalize(host.cap_add or (), "CapAdd")
    capabilities.normalize(host.cap_drop or (), "CapDrop")
    if added != (capabilities.ALL,):
        for name in added:
            if name not in facts.capabilities:
                raise InvalidParameter(
                    "invalid CapAdd: capability not supported by your kernel or not available in the current "
                    f'environment: "{name}"'
                )
    wanted = capabilities.effective(host.cap_add or (), host.cap_drop or (), privileged=host.privileged)
    lacking = [name for name in wanted if name not in facts.capabilities]
    if lacking:
        warnings.append(f"The engine itself lacks {', '.join(lacking)}; the container runs without.")


def _check_device_requests(host: HostConfig) -> None:
    """There are no device drivers. Source: moby, daemon, handleDevice."""
    for request in host.device_requests or ():
        if request.driver == "cdi":
            raise Unsupported(
                f"CDI device injection failed: unresolvable CDI devices {', '.join(request.device_ids or ())}"
            )
        wanted = " ".join(f"[{' '.join(one)}]" for one in request.capabilities or ())
        raise Unsupported(
            f'could not select device driver "{request.driver}" with capabilities: [{wanted}]',
            hint="give the container its device nodes with --device",
        )
