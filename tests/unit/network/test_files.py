"""resolv.conf and hosts of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.network.files import (
    HOSTS_HEAD,
    ResolvConf,
    host_resolv_conf,
    hosts_file,
    parse_resolv_conf,
    reachable_nameservers,
    resolv_conf,
)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", ResolvConf()),
        ("# nameserver 1.1.1.1\n; x\n\n", ResolvConf()),
        ("nameserver 10.0.0.1\nnameserver\t10.0.0.2 \n", ResolvConf(("10.0.0.1", "10.0.0.2"))),
        ("domain a\nsearch b c\n", ResolvConf(search=("b", "c"))),
        ("options ndots:2\noptions edns0 trust-ad", ResolvConf(options=("ndots:2", "edns0", "trust-ad"))),
        ("nameserver\nsearch\nunknown word\n", ResolvConf()),
    ],
)
def test_parse_resolv_conf(text: str, read: ResolvConf) -> None:
    assert parse_resolv_conf(text) == read


def test_reachable_nameservers() -> None:
    servers = ("127.0.0.53", "10.0.0.1", "::1", "2001:db8::1", "fe80::1%eth0", "0.0.0.0", "name", "127.1.2.3")
    assert reachable_nameservers(servers) == ("10.0.0.1",)


def test_the_servers_behind_a_local_resolver(tmp_path: Path) -> None:
    own, upstream = tmp_path / "resolv.conf", tmp_path / "upstream"
    own.write_text("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch corp.example\n")
    upstream.write_text("nameserver 10.0.0.1\nnameserver fd00::1\nsearch ignored.example\n")
    expected = ResolvConf(("10.0.0.1",), ("corp.example",), ("edns0", "trust-ad"))
    assert host_resolv_conf(own, [tmp_path / "missing", upstream]) == expected
    assert host_resolv_conf(own, [upstream], host_network=True).nameservers == ("127.0.0.53",)
    assert host_resolv_conf(own, []).nameservers == ("8.8.8.8", "8.8.4.4")
    assert host_resolv_conf(tmp_path / "missing", []).nameservers == ("8.8.8.8", "8.8.4.4")
    own.write_text("nameserver 127.0.0.1\nnameserver 10.9.9.9\n")
    assert host_resolv_conf(own, [upstream]).nameservers == ("10.9.9.9",)


def test_resolv_conf() -> None:
    host = ResolvConf(("10.0.0.1", "10.0.0.2"), ("a.example",), ("ndots:1",))
    assert resolv_conf(host, (), (), ()) == (
        "nameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a.example\noptions ndots:1\n"
    )
    assert resolv_conf(host, ("1.1.1.1",), ("b", "c"), ("use-vc",)) == (
        "nameserver 1.1.1.1\nsearch b c\noptions use-vc\n"
    )
    assert resolv_conf(host, (), (".",), ()) == "nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:1\n"


def test_hosts_file() -> None:
    text = hosts_file(
        "web",
        "example.org",
        ["172.30.0.2"],
        ["db:10.0.0.5", "host.docker.internal:host-gateway", "six=[::2]", "v6:::1"],
        host_gateway="172.30.0.1",
    )
    assert text == HOSTS_HEAD + (
        "10.0.0.5\tdb\n172.30.0.1\thost.docker.internal\n::2\tsix\n::1\tv6\n172.30.0.2\tweb.example.org web\n"
    )
    assert hosts_file("web", "", ["172.30.0.2"], [], host_gateway="").endswith("172.30.0.2\tweb\n")
    assert hosts_file("web", "", [], [], host_gateway="", head="1.2.3.4 x") == "1.2.3.4 x\n"
