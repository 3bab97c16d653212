"""Ports of this host, held by real sockets on its loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from holdfast.errors import InvalidParameter, System
from holdfast.network.model import PortRequest
from holdfast.network.ports import PortTable


@pytest.fixture
def table() -> Iterator[PortTable]:
    made = PortTable()
    yield made
    made.close()


def test_kernel_chooses_a_port(table: PortTable) -> None:
    first, second = table.reserve([PortRequest(80, "tcp", "127.0.0.1"), PortRequest(80, "udp", "127.0.0.1")])
    assert first.host_port
    assert second.host_port
    with pytest.raises(System, match=rf"Bind for 127.0.0.1:{first.host_port} failed: port is already allocated"):
        table.reserve([PortRequest(81, "tcp", "127.0.0.1", first.host_port)])
    table.release([first])
    assert table.reserve([PortRequest(81, "tcp", "127.0.0.1", first.host_port)])[0].container_port == 81


def test_all_or_none(table: PortTable) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        (free,) = table.reserve([PortRequest(80, "tcp", "127.0.0.1")])
        table.release([free])
        wanted = [PortRequest(80, "tcp", "127.0.0.1", free.host_port), PortRequest(81, "tcp", "127.0.0.1", taken)]
        with pytest.raises(System, match="address already in use"):
            table.reserve(wanted)
        assert table.reserve(wanted[:1]) == (free,)


def test_range_takes_the_first_free_port(table: PortTable) -> None:
    (first,) = table.reserve([PortRequest(80, "tcp", "127.0.0.1")])
    start = first.host_port
    (next_one,) = table.reserve([PortRequest(80, "tcp", "127.0.0.1", start, start + 20)])
    assert start < next_one.host_port <= start + 20
    with pytest.raises(System, match="all ports are allocated"):
        table.reserve([PortRequest(80, "tcp", "127.0.0.1", start, next_one.host_port)])


def test_any_address_meets_each(table: PortTable) -> None:
    (anywhere,) = table.reserve([PortRequest(80)])
    assert anywhere.host_ip == "0.0.0.0"
    with pytest.raises(System, match="port is already allocated"):
        table.reserve([PortRequest(80, "tcp", "127.0.0.1", anywhere.host_port)])
    table.reserve([PortRequest(80, "udp", "127.0.0.1", anywhere.host_port)])


def test_both_families_have_one_port(table: PortTable) -> None:
    four, six = table.reserve([PortRequest(80)], both=True)
    assert (four.host_ip, six.host_ip) == ("0.0.0.0", "::")
    assert four.host_port == six.host_port
    with pytest.raises(System, match=rf"Bind for \[::1\]:{six.host_port} failed: port is already allocated"):
        table.reserve([PortRequest(80, "tcp", "::1", six.host_port)])
    table.hand_over([six])
    with socket.create_server(("::1", six.host_port), family=socket.AF_INET6):
        pass
    with pytest.raises(System, match="port is already allocated"):
        table.reserve([PortRequest(80, "tcp", "::", six.host_port)])


def test_port_that_a_program_shares_is_taken_all_the_same(table: PortTable) -> None:
    refusal = r"failed to bind host port \[::1\]:\d+/tcp: address already in use"
    other = socket.create_server(("::1", 0), family=socket.AF_INET6, reuse_port=True)
    with other, pytest.raises(System, match=refusal):
        table.reserve([PortRequest(80, "tcp", "::1", other.getsockname()[1])])


def test_port_lost_while_the_engine_was_away_is_told_and_still_held(table: PortTable) -> None:
    (port,) = table.reserve([PortRequest(80, "tcp", "127.0.0.1")])
    table.release([port])
    with socket.create_server(("127.0.0.1", port.host_port)):
        assert table.reserve_again([port]) == [port]
    with pytest.raises(System, match="port is already allocated"):
        table.reserve([PortRequest(80, "tcp", "127.0.0.1", port.host_port)])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (PortRequest(80, "icmp"), "invalid protocol: icmp"),
        (PortRequest(80, "tcp", "localhost"), "invalid host IP address: localhost"),
        (PortRequest(80, "sctp", "::1"), "cannot publish SCTP on ::1"),
    ],
)
def test_requests_that_make_no_sense(table: PortTable, request_: PortRequest, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        table.reserve([request_])


def test_address_that_is_not_ours(table: PortTable) -> None:
    with pytest.raises(System, match=r"bind host port 198\.51\.100\.1:80/tcp: cannot assign requested address"):
        table.reserve([PortRequest(80, "tcp", "198.51.100.1", 80)])
