"""The flags of `run` and `create`, and where each goes in the request.

Most flags are one field of the API: the table says which. What needs a decision is in container_body.
Source: docs.docker.com, "docker container run"; Docker Engine API, ContainerCreate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from holdfast.cli.command import INTEGER as NUMBER
from holdfast.cli.command import Checked, detach_keys
from holdfast.cli.device_flags import byte_rate, gpus, operation_rate, weight_device
from holdfast.cli.human import parse_duration, parse_size
from holdfast.cli.mount_flag import parse_mount


def _cpus(text: str) -> int:
    try:
        return round(float(text) * 1e9)
    except ValueError:
        raise ValueError(f"failed to parse {text} as a rational number") from None


def _swap(text: str) -> int:
    return -1 if text == "-1" else parse_size(text)


def _duration(text: str) -> int:
    nanoseconds = parse_duration(text)
    if nanoseconds is None:
        raise ValueError(f'time: invalid duration "{text}"')
    return nanoseconds


def _ulimit(text: str) -> dict[str, object]:
    name, given, values = text.partition("=")
    soft, both, hard = values.partition(":")
    try:
        if not given:
            raise ValueError
        limit = (int(soft), int(hard if both else soft))
    except ValueError:
        raise ValueError(f"invalid ulimit argument: {text}") from None
    if limit[0] > limit[1] != -1:
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {limit[0]} > {limit[1]}")
    return {"Name": name, "Soft": limit[0], "Hard": limit[1]}


def _named(kind: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not text.partition("=")[0]:
            raise ValueError(f"invalid {kind}: {text}" if kind != "label" else f"invalid label '{text}': empty name")
        return text

    return check


def _stream(text: str) -> str:
    if text.lower() not in {"stdin", "stdout", "stderr"}:
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def _extra_host(text: str) -> str:
    """`name:address` or `name=address`; an address may be in brackets."""
    name, given, address = text.partition("=") if "=" in text else text.partition(":")
    if not (name and given and address):
        raise ValueError(f'bad format for add-host: "{text}"')
    return f"{name}:{address.removeprefix('[').removesuffix(']')}"


def _pull(text: str) -> str:
    if text not in {"always", "missing", "never"}:
        raise ValueError(f'invalid pull option: \'{text}\': must be one of "always", "missing" or "never"')
    return text


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


BYTES = Checked("BYTES", parse_size)
DURATION = Checked("DURATION", _duration)
ENV = Checked("NAME=VALUE", _named("environment variable"))
PAIR = Checked("KEY=VALUE", _pair)
BYTE_RATE = Checked("DEVICE:BYTES", byte_rate)
RATE = Checked("DEVICE:NUMBER", operation_rate)
TEXT, SWITCH = click.STRING, click.BOOL


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: its spellings, its field in the request (`""`: container_body decides), its type and help."""

    names: str
    sends: str
    type: click.ParamType[Any]
    help: str
    many: bool = False

    @property
    def key(self) -> str:
        """The name under which click hands the value over."""
        longest = max(self.names.split(), key=len)
        return longest.lstrip("-").replace("-", "_")

    def option(self) -> Callable[[Any], Any]:
        """The flag as a click option."""
        if self.type is SWITCH:
            return click.option(self.key, *self.names.split(), is_flag=True, help=self.help)
        return click.option(self.key, *self.names.split(), type=self.type, multiple=self.many, help=self.help)


FLAGS = (
    Flag("--add-host", "HostConfig.ExtraHosts", Checked("HOST", _extra_host), "Host: name:address", many=True),
    Flag("--annotation", "HostConfig.Annotations", PAIR, "Annotation for the OCI runtime", many=True),
    Flag("-a --attach", "", Checked("STREAM", _stream), "Attach only stdin, stdout or stderr", many=True),
    Flag("--blkio-weight", "HostConfig.BlkioWeight", NUMBER, "Relative weight of block I/O, 10 to 1000"),
    Flag("--blkio-weight-device", "HostConfig.BlkioWeightDevice", Checked("DEVICE:WEIGHT", weight_device),
         "Relative weight on one block device", many=True),
    Flag("--cap-add", "HostConfig.CapAdd", TEXT, "Add a Linux capability", many=True),
    Flag("--cap-drop", "HostConfig.CapDrop", TEXT, "Drop a Linux capability", many=True),
    Flag("--cgroup-parent", "HostConfig.CgroupParent", TEXT, "Parent cgroup"),
    Flag("--cgroupns", "HostConfig.CgroupnsMode", TEXT, "Cgroup namespace: host or private"),
    Flag("--cidfile", "", TEXT, "Write the container's id to this file"),
    Flag("--cpu-count", "HostConfig.CpuCount", NUMBER, "Number of CPUs (Windows only)"),
    Flag("--cpu-percent", "HostConfig.CpuPercent", NUMBER, "Percent of CPU (Windows only)"),
    Flag("--cpu-period", "HostConfig.CpuPeriod", NUMBER, "CFS period in microseconds"),
    Flag("--cpu-quota", "HostConfig.CpuQuota", NUMBER, "CFS quota in microseconds"),
    Flag("--cpu-rt-period", "HostConfig.CpuRealtimePeriod", NUMBER, "Period of real-time tasks in microseconds"),
    Flag("--cpu-rt-runtime", "HostConfig.CpuRealtimeRuntime", NUMBER, "Time of real-time tasks in microseconds"),
    Flag("-c --cpu-shares", "HostConfig.CpuShares", NUMBER, "Relative weight of CPU time"),
    Flag("--cpus", "HostConfig.NanoCpus", Checked("NUMBER", _cpus), "Number of CPUs, such as 1.5"),
    Flag("--cpuset-cpus", "HostConfig.CpusetCpus", TEXT, "CPUs to run on, such as 0-3"),
    Flag("--cpuset-mems", "HostConfig.CpusetMems", TEXT, "Memory nodes to use"),
    Flag("--detach-keys", "", Checked("KEYS", detach_keys), "Keys that detach, such as ctrl-p,ctrl-q"),
    Flag("--device", "", TEXT, "Device: host path[:path[:rwm]]", many=True),
    Flag("--device-cgroup-rule", "HostConfig.DeviceCgroupRules", TEXT, "Rule for devices, such as 'c 42:* rwm'",
         many=True),
    Flag("--device-read-bps", "HostConfig.BlkioDeviceReadBps", BYTE_RATE, "Bytes read a second", many=True),
    Flag("--device-read-iops", "HostConfig.BlkioDeviceReadIOps", RATE, "Reads a second", many=True),
    Flag("--device-write-bps", "HostConfig.BlkioDeviceWriteBps", BYTE_RATE, "Bytes written a second", many=True),
    Flag("--device-write-iops", "HostConfig.BlkioDeviceWriteIOps", RATE, "Writes a second", many=True),
    Flag("--dns", "HostConfig.Dns", TEXT, "DNS server", many=True),
    Flag("--dns-option", "HostConfig.DnsOptions", TEXT, "DNS option", many=True),
    Flag("--dns-search", "HostConfig.DnsSearch", TEXT, "DNS search domain", many=True),
    Flag("--domainname", "Domainname", TEXT, "NIS domain name"),
    Flag("--entrypoint", "", TEXT, "Program to run instead of the image's entrypoint"),
    Flag("-e --env", "", ENV, "Environment: NAME=VALUE, or NAME to pass ours on", many=True),
    Flag("--env-file", "", TEXT, "File of environment variables", many=True),
    Flag("--expose", "", TEXT, "Port or range that the container offers", many=True),
    Flag("--gpus", "HostConfig.DeviceRequests", Checked("GPUS", gpus), "GPUs: all, or a number", many=True),
    Flag("--group-add", "HostConfig.GroupAdd", TEXT, "Additional group", many=True),
    Flag("--health-cmd", "", TEXT, "Command that checks health"),
    Flag("--health-interval", "", DURATION, "Time between checks"),
    Flag("--health-retries", "", NUMBER, "Failures in a row that mean unhealthy"),
    Flag("--health-start-interval", "", DURATION, "Time between checks while starting"),
    Flag("--health-start-period", "", DURATION, "Time in which failures do not count"),
    Flag("--health-timeout", "", DURATION, "Time that a check may take"),
    Flag("-h --hostname", "Hostname", TEXT, "Host name inside"),
    Flag("--init", "HostConfig.Init", SWITCH, "Run an init that forwards signals and reaps processes"),
    Flag("-i --interactive", "OpenStdin", SWITCH, "Keep stdin open"),
    Flag("--io-maxbandwidth", "HostConfig.IOMaximumBandwidth", BYTES, "Bytes a second (Windows only)"),
    Flag("--io-maxiops", "HostConfig.IOMaximumIOps", NUMBER, "Operations a second (Windows only)"),
    Flag("--ip", "", TEXT, "IPv4 address"),
    Flag("--ip6", "", TEXT, "IPv6 address"),
    Flag("--ipc", "HostConfig.IpcMode", TEXT, "IPC namespace"),
    Flag("--isolation", "HostConfig.Isolation", TEXT, "Isolation technology: default"),
    Flag("--kernel-memory", "HostConfig.KernelMemory", BYTES, "Limit of kernel memory"),
    Flag("-l --label", "", Checked("LABEL", _named("label")), "Label: KEY=VALUE", many=True),
    Flag("--label-file", "", TEXT, "File of labels", many=True),
    Flag("--link", "HostConfig.Links", TEXT, "Link to another container", many=True),
    Flag("--link-local-ip", "", TEXT, "Link-local address", many=True),
    Flag("--log-driver", "", TEXT, "Logging driver"),
    Flag("--log-opt", "", PAIR, "Option for the logging driver", many=True),
    Flag("--mac-address", "", TEXT, "MAC address"),
    Flag("-m --memory", "HostConfig.Memory", BYTES, "Limit of memory, such as 512m"),
    Flag("--memory-reservation", "HostConfig.MemoryReservation", BYTES, "Soft limit of memory"),
    Flag("--memory-swap", "HostConfig.MemorySwap", Checked("BYTES", _swap), "Memory and swap together; -1: unlimited"),
    Flag("--memory-swappiness", "HostConfig.MemorySwappiness", NUMBER, "How willingly to swap, 0 to 100"),
    Flag("--mount", "HostConfig.Mounts", Checked("MOUNT", parse_mount), "Mount: type=volume,src=,dst=,...", many=True),
    Flag("--name", "", TEXT, "Name of the container"),
    Flag("--network --net", "", TEXT, "Network to connect to: bridge, none, host, container:NAME or a name", many=True),
    Flag("--network-alias", "", TEXT, "Another name on the network", many=True),
    Flag("--no-healthcheck", "", SWITCH, "No health checks, whatever the image says"),
    Flag("--oom-kill-disable", "HostConfig.OomKillDisable", SWITCH, "Do not kill when out of memory"),
    Flag("--oom-score-adj", "HostConfig.OomScoreAdj", NUMBER, "How willingly to kill when out of memory"),
    Flag("--pid", "HostConfig.PidMode", TEXT, "PID namespace"),
    Flag("--pids-limit", "HostConfig.PidsLimit", NUMBER, "Limit of processes; -1: unlimited"),
    Flag("--platform", "", TEXT, "Platform, such as linux/arm64"),
    Flag("--privileged", "HostConfig.Privileged", SWITCH, "Give every privilege"),
    Flag("-p --publish", "", TEXT, "Publish: [[address:]host port:]port[/protocol]", many=True),
    Flag("-P --publish-all", "HostConfig.PublishAllPorts", SWITCH, "Publish all exposed ports to free ones"),
    Flag("--pull", "", Checked("POLICY", _pull), "When to fetch the image: always, missing, never"),
    Flag("-q --quiet", "", SWITCH, "No output while pulling"),
    Flag("--read-only", "HostConfig.ReadonlyRootfs", SWITCH, "Mount the root file system read-only"),
    Flag("--restart", "", TEXT, "Restart policy: no, always, unless-stopped, on-failure[:N]"),
    Flag("--rm", "HostConfig.AutoRemove", SWITCH, "Remove it and its anonymous volumes when it ends"),
    Flag("--runtime", "HostConfig.Runtime", TEXT, "OCI runtime"),
    Flag("--security-opt", "", TEXT, "Security option", many=True),
    Flag("--shm-size", "HostConfig.ShmSize", BYTES, "Size of /dev/shm"),
    Flag("--stop-signal", "StopSignal", TEXT, "Signal that stops it"),
    Flag("--stop-timeout", "StopTimeout", NUMBER, "Seconds from that signal to SIGKILL"),
    Flag("--storage-opt", "HostConfig.StorageOpt", PAIR, "Storage option", many=True),
    Flag("--sysctl", "HostConfig.Sysctls", PAIR, "Kernel parameter", many=True),
    Flag("--tmpfs", "", TEXT, "tmpfs: path[:options]", many=True),
    Flag("-t --tty", "Tty", SWITCH, "Allocate a terminal"),
    Flag("--ulimit", "HostConfig.Ulimits", Checked("ULIMIT", _ulimit), "Limit: name=soft[:hard]", many=True),
    Flag("-u --user", "User", TEXT, "User: name|id[:group|id]"),
    Flag("--userns", "HostConfig.UsernsMode", TEXT, "User namespace"),
    Flag("--uts", "HostConfig.UTSMode", TEXT, "UTS namespace"),
    Flag("-v --volume", "", TEXT, "Volume or path: [name|path:]path[:options]", many=True),
    Flag("--volume-driver", "HostConfig.VolumeDriver", TEXT, "Driver for the volumes of -v"),
    Flag("--volumes-from", "HostConfig.VolumesFrom", TEXT, "Mount the volumes of another container", many=True),
    Flag("-w --workdir", "WorkingDir", TEXT, "Working directory"),
)


def container_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add all of them to a command."""
    for flag in reversed(FLAGS):
        function = flag.option()(function)
    return function
