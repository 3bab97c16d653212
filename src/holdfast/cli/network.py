"""`holdfast network`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from holdfast.cli import human
from holdfast.cli.command import command, filter_option, format_option, gathered, key_value
from holdfast.cli.network_body import network_body
from holdfast.cli.output import Layout, Row, joined, print_rows
from holdfast.cli.session import complain, confirmed, pass_client
from holdfast.client import Client, Document
from holdfast.errors import EngineError, NotFound

_LAYOUT = Layout(
    headings={
        "CreatedAt": "CREATED AT",
        "Driver": "DRIVER",
        "ID": "NETWORK ID",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Label": lambda name: str(name).rpartition(".")[2],
        "Labels": "LABELS",
        "Name": "NAME",
        "Scope": "SCOPE",
    },
    table="ID Name Driver Scope",
    quiet="ID",
)


def row(network: Document, *, whole_ids: bool) -> Row:
    """One network in a list."""
    labels = network.mapping("Labels")
    key = network.text("Id")
    return {
        "CreatedAt": _as_go_prints(network.text("Created")),
        "Driver": network.text("Driver"),
        "ID": key if whole_ids else key[:12],
        "IPv4": str(network.flag("EnableIPv4")).lower(),
        "IPv6": str(network.flag("EnableIPv6")).lower(),
        "Internal": str(network.flag("Internal")).lower(),
        "Label": lambda name: labels.get(name, ""),
        "Labels": joined(labels),
        "Name": network.text("Name"),
        "Scope": network.text("Scope"),
    }


def _as_go_prints(time: str) -> str:
    """A time in UTC, from RFC 3339."""
    day, _, rest = time.removesuffix("Z").partition("T")
    whole, dot, fraction = rest.partition(".")
    return f"{day} {whole}{(dot + fraction.rstrip('0')).rstrip('.')} +0000 UTC"


@command("create")
@click.argument("name", metavar="NETWORK")
@click.option("--attachable", is_flag=True, help="Accepted; every network of this engine is")
@click.option("aux_addresses", "--aux-address", multiple=True, metavar="NAME=ADDRESS", help="Address of another host")
@click.option("--config-from", default="", metavar="NETWORK", help="Network that has the configuration")
@click.option("--config-only", is_flag=True, help="Keep a configuration for other networks")
@click.option("-d", "--driver", default="bridge", metavar="NAME", help="Driver of the network (default bridge)")
@click.option("gateways", "--gateway", multiple=True, metavar="ADDRESS", help="Address of the bridge in its subnet")
@click.option("--internal", is_flag=True, help="Let nothing out of the network or into it")
@click.option("ranges", "--ip-range", multiple=True, metavar="SUBNET", help="Part of a subnet to give addresses from")
@click.option("--ipam-driver", default="default", metavar="NAME", help="Driver of the addresses")
@click.option("ipam_options", "--ipam-opt", multiple=True, metavar="KEY=VALUE", help="Option for that driver")
@click.option("--ipv4", type=click.BOOL, is_flag=False, flag_value=True, default=None, metavar="BOOL", help="Use IPv4")
@click.option("--ipv6", type=click.BOOL, is_flag=False, flag_value=True, default=None, metavar="BOOL", help="Use IPv6")
@click.option("labels", "--label", multiple=True, metavar="KEY=VALUE", help="Label")
@click.option("options", "-o", "--opt", multiple=True, metavar="KEY=VALUE", help="Option for the driver")
@click.option("subnets", "--subnet", multiple=True, metavar="SUBNET", help="Subnet, such as 10.5.0.0/16")
@pass_client
def create(client: Client, /, name: str, **values: object) -> int:
    """Create a network. Prints its id."""
    answer = client.networks.create(network_body(name, values))
    if warning := answer.text("Warning"):
        print(f"WARNING: {warning}", file=sys.stderr)
    print(answer.text("Id"))
    return 0


@command("ls")
@click.option("-q", "--quiet", is_flag=True, help="Only show network IDs")
@click.option("--no-trunc", is_flag=True, help="Show whole IDs")
@filter_option("Show only networks that fit: dangling=, driver=, id=, label=, name=, scope=, type=")
@format_option
@pass_client
def ls(client: Client, quiet: bool, no_trunc: bool, filters: Sequence[tuple[str, str]], template: str) -> int:
    """List networks, in the natural order of their names."""
    networks = client.networks.list(gathered(filters))
    networks.sort(key=lambda network: human.natural_key(network.text("Name")))
    rows = [row(network, whole_ids=no_trunc) for network in networks]
    print_rows(rows, _LAYOUT, template=template, quiet=quiet)
    return 0


@command("inspect")
@click.argument("names", nargs=-1, required=True, metavar="NETWORK [NETWORK...]")
@click.option("template", "-f", "--format", default="", metavar="FORMAT", help='"json" or a Go template')
@click.option("-v", "--verbose", is_flag=True, help="Accepted; there is no more to show")
@pass_client
def inspect(client: Client, names: Sequence[str], template: str, verbose: bool) -> int:  # noqa: ARG001
    """Show all that is known of networks, as a JSON array."""
    from holdfast.cli.inspect import show

    return show(names, client.networks.get, template)


@command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NETWORK [NETWORK...]")
@click.option("-f", "--force", is_flag=True, help="Do not complain about a network that is not there")
@pass_client
def rm(client: Client, names: Sequence[str], force: bool) -> int:
    """Remove networks. One with containers that run stays."""
    exit_code = 0
    for name in names:
        try:
            client.networks.remove(name)
        except EngineError as error:
            if not (force and isinstance(error, NotFound)):
                complain(error)
                exit_code = 1
        else:
            print(name, flush=True)
    if exit_code:
        print(f"exit status {exit_code}", file=sys.stderr)
    return exit_code


@command("prune")
@click.option("-f", "--force", is_flag=True, help="Do not ask first")
@filter_option("Remove only networks that fit: label=, label!=, until=", short=False)
@pass_client
def prune(client: Client, force: bool, filters: Sequence[tuple[str, str]]) -> int:
    """Remove the networks that no container uses."""
    if not force and not confirmed("This will remove all custom networks not used by at least one container."):
        return 0
    if removed := client.networks.prune(gathered(filters)).strings("NetworksDeleted"):
        print("Deleted Networks:", *removed, "", sep="\n")
    return 0


@command("connect")
@click.argument("network", metavar="NETWORK")
@click.argument("container", metavar="CONTAINER")
@click.option("aliases", "--alias", multiple=True, metavar="NAME", help="Another name on the network")
@click.option("driver_options", "--driver-opt", multiple=True, metavar="KEY=VALUE", help="Option for the driver")
@click.option("--gw-priority", type=int, default=0, metavar="NUMBER", help="The highest has the default route")
@click.option("--ip", default="", metavar="ADDRESS", help="IPv4 address")
@click.option("--ip6", default="", metavar="ADDRESS", help="IPv6 address")
@click.option("links", "--link", multiple=True, metavar="CONTAINER[:NAME]", help="A name for another container there")
@pass_client
def connect(
    client: Client,
    network: str,
    container: str,
    aliases: Sequence[str],
    driver_options: Sequence[str],
    gw_priority: int,
    ip: str,
    ip6: str,
    links: Sequence[str],
) -> int:
    """Put a container into a network, whether it runs or not."""
    addresses = {key: value for key, value in (("IPv4Address", ip), ("IPv6Address", ip6)) if value}
    endpoint = {
        "IPAMConfig": addresses,
        "Aliases": list(aliases),
        "Links": list(links),
        "DriverOpts": dict(map(key_value, driver_options)),
        "GwPriority": gw_priority,
    }
    client.networks.connect(network, container, endpoint)
    return 0


@command("disconnect")
@click.argument("network", metavar="NETWORK")
@click.argument("container", metavar="CONTAINER")
@click.option("-f", "--force", is_flag=True, help="Even a container that is gone")
@pass_client
def disconnect(client: Client, network: str, container: str, force: bool) -> int:
    """Take a container out of a network, whether it runs or not."""
    client.networks.disconnect(network, container, force=force)
    return 0
