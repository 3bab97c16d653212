"""A real application under Docker Compose: nginx, a web page, PostgreSQL on a volume; engines that die meanwhile."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.compose import Project, fetch
from tests.support.debian_images import CannotBuild, debian_root
from tests.support.engine import Engine, engine_below
from tests.support.images import docker_archive, file_entry, image, layer

FILES = Path(__file__).parent / "compose" / "shop"
PORT = 18080

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


@pytest.fixture(scope="module")
def shop(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The application, up."""
    project = Project(engine, tmp_path_factory.mktemp("projects") / "shop")
    shutil.copytree(FILES, project.folder, dirs_exist_ok=True)
    up(project)
    yield project
    project.down()


def visit(engine: Engine, port: int = PORT) -> int:
    """Fetch the page through the published port; the number of visits that it shows."""
    shown = fetch(engine, port)
    found = re.fullmatch(r"visits (\d+)\n", shown)
    assert found is not None, shown
    return int(found[1])


def up(project: Project, port: int = PORT) -> None:
    project.run("up", "-d", "--wait", env={"PORT": str(port)})


def test_data_outlives_the_application(engine: Engine, shop: Project) -> None:
    first = visit(engine)
    assert [visit(engine), visit(engine)] == [first + 1, first + 2]
    shop.run("down")
    assert engine.call("GET", "/containers/json?all=1") == []
    up(shop)
    assert visit(engine) == first + 3


def test_two_projects_do_not_see_each_other(engine: Engine, shop: Project) -> None:
    other = Project(engine, shop.folder.parent / "other")
    try:
        shutil.copytree(FILES, other.folder, dirs_exist_ok=True)
        up(other, 18081)
        visits = visit(engine)
        assert [visit(engine, 18081), visit(engine, 18081), visit(engine)] == [1, 2, visits + 1]
        address = engine.call("GET", "/containers/other-web-1/json")["NetworkSettings"]["Networks"]["other_default"]
        script = f"getent hosts web; timeout 3 /get http://{address['IPAddress']}:8000/health && exit 9; exit 0"
        found = engine.docker("exec", "shop-proxy-1", "sh", "-c", script)
        own = engine.call("GET", "/containers/shop-web-1/json")["NetworkSettings"]["Networks"]["shop_default"]
        assert found.stdout.split() == [own["IPAddress"], "web"]
        other.run("down", "-v")
        assert engine.request("GET", "/volumes/other_data").status == 404
        assert visit(engine) == visits + 2
    finally:
        other.down()


def test_engine_killed_while_traffic_runs(engine: Engine, shop: Project) -> None:
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
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    assert {box["Id"]: box["State"] for box in engine.call("GET", "/containers/json")} == before
    shop.run("restart", "web")
    up(shop)
    assert visit(engine) == seen[-1] + 1
