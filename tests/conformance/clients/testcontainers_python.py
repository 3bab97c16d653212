"""Testcontainers for Python: what people write in the tests of their own projects. Prints a word for every step."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import (
    CompositeWaitStrategy,
    ExecWaitStrategy,
    HttpWaitStrategy,
    LogMessageWaitStrategy,
    PortWaitStrategy,
)

SERVER = ["sh", "-c", "echo $GREETING >/www/index.html; echo ready to serve; exec httpd -f -p 8080 -h /www"]


def main() -> None:
    """Drive the engine that DOCKER_HOST names."""
    with TemporaryDirectory() as folder, Network() as network:
        Path(folder, "page.html").write_text("from the host\n")
        server = (
            DockerContainer("busybox:latest")
            .with_command(SERVER)
            .with_env("GREETING", "hello")
            .with_exposed_ports(8080)
            .with_volume_mapping(folder, "/www/host", "ro")
            .with_tmpfs_mount("/www")
            .with_kwargs(labels={"part": "server"})
            .with_network(network)
            .with_network_aliases("server")
        )
        server.waiting_for(
            CompositeWaitStrategy(
                LogMessageWaitStrategy("ready to serve"),
                PortWaitStrategy(8080),
                HttpWaitStrategy(8080).for_status_code(200),
                ExecWaitStrategy(["test", "-e", "/www/index.html"]),
            )
        )
        with server:
            print("start", "wait")
            address = f"http://{server.get_container_host_ip()}:{server.get_exposed_port(8080)}"
            with urllib.request.urlopen(address, timeout=10) as answer:
                assert answer.read() == b"hello\n"
            with urllib.request.urlopen(f"{address}/host/page.html", timeout=10) as answer:
                assert answer.read() == b"from the host\n"
            print("port", "volume")
            assert server.exec(["sh", "-c", "echo inside; exit 3"]) == (3, b"inside\n")
            print("exec")
            out, _ = server.get_logs()
            assert out == b"ready to serve\n"
            print("logs")
            server.copy_into_container(b"copied\n", "/tmp/note")
            assert server.exec(["cat", "/tmp/note"]).output == b"copied\n"
            server.copy_from_container("/tmp/note", Path(folder, "note"))
            assert Path(folder, "note").read_text() == "copied\n"
            print("copy")
            asks = ["wget", "-qO-", "http://server:8080/"]
            with DockerContainer("busybox:latest").with_network(network).with_command("sleep 100") as client:
                assert client.exec(asks).output == b"hello\n"
            print("network")
            wrapped = server.get_wrapped_container()
        assert server.get_docker_client().client.containers.list(all=True, filters={"id": wrapped.id}) == []
        print("remove")


if __name__ == "__main__":
    main()
