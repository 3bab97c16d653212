"""A real application under Docker Compose: nginx, a web page, PostgreSQL on a volume; engines that die meanwhile."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.compose import Project
from tests.support.debian_images import CannotBuild, debian_root
from tests.support.engine import Engine, engine_below
from tests.support.images import docker_archive, file_entry, image, layer

FILES = Path(__file__).parent / "compose"
PORT = "18080"

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine with the application's images."""
    try:
        root = debian_root("nginx", "postgresql", "python3-psycopg2").read_bytes()
    except CannotBuild as error:
        pytest.skip(str(error))
    own = layer([file_entry(name.partition(".")[0], (FILES / name).read_bytes(), mode=0o755) for name in PROGRAMS])
    images = [image([root, own], tags=[f"app-{name}:latest"], config=config) for name, config in IMAGES.items()]
    with engine_below(tmp_path_factory.mktemp("engine"), busybox=False) as running:
        loaded = running.request("POST", "/images/load?quiet=1", raw=docker_archive(images))
        assert loaded.status == 200 and b"error" not in loaded.body, loaded.body
        yield running


PROGRAMS = ("database.sh", "web.py", "get.py")
IMAGES = {
    "proxy": {"Cmd": ["nginx", "-g", "daemon off;"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"},
    "web": {"Cmd": ["python3", "-u", "/web"], "ExposedPorts": {"8000/tcp": {}}},
    "database": {
        "Cmd": ["/database"], "ExposedPorts": {"5432/tcp": {}}, "StopSignal": "SIGINT",
        "Volumes": {"/var/lib/postgresql/data": {}},
    },
}  # fmt: skip


@pytest.fixture
def shop(engine: Engine, tmp_path: Path) -> Iterator[Project]:
    """The application, not up yet."""
    project = Project(engine, tmp_path / "shop")
    shutil.copytree(FILES, project.folder, dirs_exist_ok=True)
    yield project
    project.down()


def visit(engine: Engine, port: str = PORT) -> int:
    """Fetch the page through the published port; the number of visits that it shows."""
    shown = engine.inside("curl", "-sS", "--max-time", "10", f"http://127.0.0.1:{port}/").stdout
    found = re.fullmatch(r"visits (\d+)\n", shown)
    assert found is not None, shown
    return int(found[1])


def up(project: Project, port: str = PORT) -> None:
    project.run("up", "-d", "--wait", env={"PORT": port})


def test_data_outlives_the_application(engine: Engine, shop: Project) -> None:
    up(shop)
    assert [visit(engine) for _ in range(3)] == [1, 2, 3]
    shop.run("down")
    assert engine.call("GET", "/containers/json?all=1") == []
    up(shop)
    assert visit(engine) == 4
    shop.run("down", "-v")
    assert engine.request("GET", "/volumes/shop_data").status == 404
    up(shop)
    assert visit(engine) == 1
    shop.run("down", "-v", "-t", "1")
    engine.holdfast("volume", "trash", "empty", "-f")


def test_engine_killed_while_traffic_runs(engine: Engine, shop: Project) -> None:
    up(shop)
    before = {box["Id"]: box["State"] for box in engine.call("GET", "/containers/json")}
    seen = [visit(engine)]
    over = threading.Event()
    failures: list[str] = []

    def traffic() -> None:
        while not over.is_set():
            try:
                seen.append(visit(engine))
            except AssertionError as error:
                failures.append(str(error))

    visitor = threading.Thread(target=traffic)
    visitor.start()
    try:
        for _ in range(2):
            engine.kill()
            engine.wait_dead()
            engine.start()
    finally:
        over.set()
        visitor.join()
    assert not failures, failures[:3]
    assert seen == list(range(1, len(seen) + 1))
    assert {box["Id"]: box["State"] for box in engine.call("GET", "/containers/json")} == before
    shop.run("restart", "web")
    up(shop)
    assert visit(engine) == len(seen) + 1
    shop.run("down", "-v")


def test_two_projects_do_not_see_each_other(engine: Engine, shop: Project, tmp_path: Path) -> None:
    other = Project(engine, tmp_path / "other")
    try:
        shutil.copytree(FILES, other.folder, dirs_exist_ok=True)
        up(shop)
        up(other, "18081")
        assert [visit(engine), visit(engine), visit(engine, "18081")] == [1, 2, 1]
        address = engine.call("GET", "/containers/other-web-1/json")["NetworkSettings"]["Networks"]["other_default"]
        script = f"getent hosts web; curl -sS -m 2 http://{address['IPAddress']}:8000/health && exit 9; exit 0"
        found = engine.docker("exec", "shop-proxy-1", "sh", "-c", script.replace("curl -sS -m 2", "timeout 3 /get"))
        own = engine.call("GET", "/containers/shop-web-1/json")["NetworkSettings"]["Networks"]["shop_default"]
        assert found.stdout.split() == [own["IPAddress"], "web"]
    finally:
        other.down()
