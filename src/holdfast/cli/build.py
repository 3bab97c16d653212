"""`holdfast build` and `holdfast builder prune`. Docker's words; the flags that the engine's builder knows."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from holdfast.cli import human
from holdfast.cli.build_context import Context, packed
from holdfast.cli.command import command, filter_option, gathered
from holdfast.cli.container_flags import BYTES
from holdfast.cli.credentials import config_header
from holdfast.cli.progress import StreamFailed, show_progress
from holdfast.cli.session import Refused, confirmed, pass_client
from holdfast.client import Client
from holdfast.client.transport import pieces

_HEAD_BYTES = 512
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
"""gzip, bzip2, xz and zstd."""


@command("build")
@click.argument("path", metavar="PATH | -")
@click.option("hosts", "--add-host", multiple=True, metavar="HOST:IP", help="Add a line to /etc/hosts")
@click.option("arguments", "--build-arg", multiple=True, metavar="NAME[=VALUE]", help="Set a variable of the build")
@click.option("cpu_period", "--cpu-period", type=int, default=0, metavar="INT", help="CFS period in microseconds")
@click.option("cpu_quota", "--cpu-quota", type=int, default=0, metavar="INT", help="CFS quota in microseconds")
@click.option("cpu_shares", "-c", "--cpu-shares", type=int, default=0, metavar="INT", help="CPU shares")
@click.option("cpus", "--cpuset-cpus", default="", metavar="LIST", help="CPUs to run on, such as 0-3")
@click.option("dockerfile", "-f", "--file", default="", metavar="FILE", help="The Dockerfile (PATH/Dockerfile)")
@click.option("id_file", "--iidfile", default="", metavar="FILE", help="Write the id of the image to a file")
@click.option("labels", "--label", multiple=True, metavar="NAME=VALUE", help="Set a label of the image")
@click.option("memory", "-m", "--memory", type=BYTES, default=0, help="Limit of memory")
@click.option("swap", "--memory-swap", type=BYTES, default=0, help="Limit of memory and swap")
@click.option("network", "--network", default="default", metavar="MODE", help="Network of RUN instructions")
@click.option("no_cache", "--no-cache", is_flag=True, help="Do not use what earlier builds made")
@click.option("platform", "--platform", default="", metavar="PLATFORM", help="Platform of images that are pulled")
@click.option("pull", "--pull", is_flag=True, help="Ask the registry for newer images")
@click.option("quiet", "-q", "--quiet", is_flag=True, help="Only print the id of the image")
@click.option("shm_size", "--shm-size", type=BYTES, default=0, help="Size of /dev/shm")
@click.option("tags", "-t", "--tag", multiple=True, metavar="NAME[:TAG]", help="Name of the image; may be repeated")
@click.option("target", "--target", default="", metavar="STAGE", help="Stage to stop at")
@pass_client
def build(
    client: Client,
    path: str,
    hosts: Sequence[str],
    arguments: Sequence[str],
    cpu_period: int,
    cpu_quota: int,
    cpu_shares: int,
    cpus: str,
    dockerfile: str,
    id_file: str,
    labels: Sequence[str],
    memory: int,
    swap: int,
    network: str,
    no_cache: bool,
    platform: str,
    pull: bool,
    quiet: bool,
    shm_size: int,
    tags: Sequence[str],
    target: str,
) -> int:
    """Build an image from a Dockerfile; `-` reads a Dockerfile, or a tar of the whole context, from standard input."""
    name, body = _context(path, dockerfile)
    query = {
        "dockerfile": name, "t": list(tags), "extrahosts": list(hosts), "target": target, "networkmode": network,
        "buildargs": _pairs(arguments, os.environ), "labels": _pairs(labels, {}), "cpuperiod": cpu_period or None,
        "cpuquota": cpu_quota or None, "cpushares": cpu_shares or None, "cpusetcpus": cpus, "memory": memory or None,
        "memswap": swap or None, "shmsize": shm_size or None, "nocache": no_cache, "pull": pull, "q": quiet,
        "platform": platform, "rm": True,
    }  # fmt: skip
    try:
        data = show_progress(client.images.build(body, query, config=config_header()), sys.stdout)
    except StreamFailed as failed:
        print(failed, file=sys.stderr)
        return failed.code or 1
    if id_file and data:
        Path(id_file).write_text(data[-1].text("ID"), encoding="utf-8")
    return 0


@command("prune")
@click.option("everything", "-a", "--all", is_flag=True, help="The whole cache; it goes as a whole in any case")
@click.option("force", "-f", "--force", is_flag=True, help="Do not ask first")
@click.option("keep", "--keep-storage", type=BYTES, default=0, help="Leave a cache that takes no more")
@filter_option("Remove only a cache that fits: until=", short=False)
@pass_client
def prune(client: Client, everything: bool, force: bool, keep: int, filters: Sequence[tuple[str, str]]) -> int:
    """Remove the build cache."""
    if not force and not confirmed("This will remove all build cache that no build uses."):
        return 0
    answer = client.images.prune_builds(gathered(filters), everything=everything, keep_bytes=keep)
    if removed := answer.strings("CachesDeleted"):
        print("Deleted build cache objects:", *removed, "", sep="\n")
    print(f"Total reclaimed space: {human.size(answer.number('SpaceReclaimed'))}")
    return 0


def _context(path: str, dockerfile: str) -> tuple[str, Iterator[bytes]]:
    """The name of the Dockerfile in the context, and the context. Raises Refused."""
    if path != "-":
        context = Context(path, dockerfile)
        return context.dockerfile, context.pieces()
    standard = sys.stdin.buffer
    head = standard.read(_HEAD_BYTES)
    if head[257:262] == b"ustar" or head.startswith(_COMPRESSED):
        return dockerfile or "Dockerfile", itertools.chain([head], pieces(standard))
    if dockerfile:
        raise Refused("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")
    return "Dockerfile", packed("Dockerfile", head + standard.read())


def _pairs(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """`NAME=VALUE` as JSON; a name alone takes its value from the environment, or has none."""
    pairs: dict[str, str | None] = {}
    for word in words:
        name, given, value = word.partition("=")
        pairs[name] = value if given else environment.get(name)
    return json.dumps(pairs) if pairs else ""
