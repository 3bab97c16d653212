"""What a reviewer would say twice: the direction of imports, who may do what, dead files, missing words.

The rooms and their ranks are those of docs/architecture.md.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
SOURCE = PROJECT / "src" / "holdfast"

RANKS = {
    "daemon": 6, "cli": 6,
    "api": 5, "client": 5, "webui": 5,
    "wire": 4, "containers": 4, "builder": 4,
    "volumes": 3, "images": 3, "runtime": 3, "network": 3,
    "plugins": 2, "csi": 2, "attendant": 2,
    "store": 1,
    "kernel": 0, "process": 0, "errors": 0, "config": 0, "events": 0, "locks": 0, "log": 0, "faults": 0,
    "shapes": 0,
    "__init__": 0,
}  # fmt: skip
STRANGERS = [{"wire", "containers"}, {"builder", "containers"}]
"""Rooms of one rank that must not know each other."""

SELECTS = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|CREATE\s+TABLE)\b", re.DOTALL
)
FORBIDDEN_CALLS = {
    "os.system": "programs run through process.run",
    "os.popen": "programs run through process.run",
    "os.fork": "the engine has threads",
    "shutil.rmtree": "it follows what others put in its way; use kernel.path.remove_tree",
}
FORBIDDEN_ARGUMENTS = {"preexec_fn": "it forks the whole engine", "shell": "programs run without a shell"}
FORBIDDEN_WORDS = re.compile(r"\b(TODO|FIXME|XXX)\b|\bNotImplementedError\b")


@cache
def files() -> tuple[Path, ...]:
    """Every Python file of the package."""
    return tuple(sorted(SOURCE.rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    """A file, parsed."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    """The path as a reader would say it."""
    return str(path.relative_to(PROJECT))


def room_of(path: Path) -> str:
    """The room that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    """The file's module name."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, wherever in the file, with the line. Relative imports are resolved."""
    package = list(path.relative_to(SOURCE.parent).with_suffix("").parts[:-1])
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module or "")))
            yield module, node.lineno
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno


def violations_of_rank() -> Iterator[str]:
    """Imports that go up, or to a room that must not be known."""
    for path in files():
        room = room_of(path)
        if room not in RANKS:
            yield f"{name_of(path)}: the room {room} has no rank; add it here and to docs/architecture.md"
            continue
        for module, line in imports_of(path):
            parts = module.split(".")
            if parts[0] != "holdfast" or len(parts) < 2 or parts[1] not in RANKS:
                continue
            other = parts[1]
            if RANKS[other] > RANKS[room] or (other != room and {room, other} in STRANGERS):
                yield f"{name_of(path)}:{line}: {room} must not import {other}"


def test_imports_go_down() -> None:
    assert sorted(set(violations_of_rank())) == []


def test_every_room_has_a_rank_that_the_documents_give() -> None:
    text = (PROJECT / "docs" / "architecture.md").read_text()
    rooms = {room_of(path) for path in files()} - {"__init__"}
    assert sorted(room for room in rooms if f"`{room}" not in text) == []


def test_our_own_calls_and_the_settings_of_undo_are_documented() -> None:
    calls = (PROJECT / "docs" / "api-changes.md").read_text()
    routes = re.compile(r'routes\.add\w*\(\s*"(\w+)", "(/holdfast/[^"]*)"')
    added = [found for path in files() if room_of(path) == "api" for found in routes.findall(path.read_text())]
    assert len(added) >= 7
    calls_of_ours = [f"{method} {re.sub(':[^}]*', '', path)}" for method, path in added]
    assert [call for call in calls_of_ours if f"`{call}`" not in calls] == []
    undo = (PROJECT / "docs" / "undo.md").read_text()
    settings = re.findall(r"^ {4}(trash_\w+):", (SOURCE / "config.py").read_text(), re.MULTILINE)
    assert settings and [name for name in settings if f"`{name}`" not in undo] == []


def test_only_kernel_uses_ctypes() -> None:
    users = [
        f"{name_of(path)}:{line}"
        for path in files()
        if room_of(path) != "kernel"
        for module, line in imports_of(path)
        if module.split(".")[0] == "ctypes"
    ]
    assert users == []


def test_only_store_speaks_sql() -> None:
    speakers = []
    for path in files():
        if room_of(path) == "store":
            continue
        if any(module.split(".")[0] == "sqlite3" for module, _ in imports_of(path)):
            speakers.append(f"{name_of(path)}: imports sqlite3")
        speakers += [
            f"{name_of(path)}:{node.lineno}"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and SELECTS.search(node.value)
        ]
    assert speakers == []


def test_no_dead_files() -> None:
    """A module that nothing in the package imports is dead; the program's own entry is the exception."""
    used = {"holdfast", "holdfast.cli.main", "holdfast.__main__"}
    for path in files():
        own = module_of(path)
        for module, _ in imports_of(path):
            if module != own:
                used.add(module)
    # Lazily loaded modules are named in strings: "holdfast.cli.volume:create", or in a table of commands.
    strings = {
        node.value.split(":")[0]
        for path in files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 100
    }
    dead = []
    for path in files():
        module = module_of(path)
        package = path.name == "__init__.py"
        if module in used or module in strings:
            continue
        if package and any(other.startswith(module + ".") for other in used | strings):
            continue
        if module.startswith("holdfast.cli.") and module.rpartition(".")[2].replace("_", "-") in strings:
            continue
        dead.append(module)
    assert dead == []


def forbidden_in(path: Path) -> Iterator[str]:
    """Calls and arguments that have no place in the engine, and words of unfinished work."""
    for node in ast.walk(tree(path)):
        where = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called = f"{node.value.id}.{node.attr}"
            if called in FORBIDDEN_CALLS:
                yield f"{where}: {called}: {FORBIDDEN_CALLS[called]}"
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                fact = not isinstance(keyword.value, ast.Constant)  # a container's own shell, not a switch
                if keyword.arg in FORBIDDEN_ARGUMENTS and not (keyword.arg == "shell" and fact):
                    yield f"{where}: {keyword.arg}=: {FORBIDDEN_ARGUMENTS[keyword.arg]}"
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if found := FORBIDDEN_WORDS.search(line):
            yield f"{name_of(path)}:{number}: {found[0]}: an open matter is an issue, not a comment"


def test_nothing_forbidden() -> None:
    assert [text for path in files() for text in forbidden_in(path)] == []


def fault_points() -> Iterator[tuple[str, str]]:
    """Each point's name and place."""
    for path in files():
        for node in ast.walk(tree(path)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "point"
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "faults"
            ):
                argument = node.args[0]
                assert isinstance(argument, ast.Constant), f"{name_of(path)}:{node.lineno}: a point's name is a literal"
                yield str(argument.value), f"{name_of(path)}:{node.lineno}"


def test_fault_points_have_names_of_their_own() -> None:
    names = Counter(name for name, _ in fault_points())
    assert [name for name, count in names.items() if count > 1] == []
    assert [name for name in names if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)] == []


def public_functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions and methods that others may call: no leading underscore, nor in a class or function that has one."""

    def below(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                if not child.name.startswith("_"):
                    yield child
            elif isinstance(child, ast.ClassDef):
                if not child.name.startswith("_"):
                    yield from below(child)
            elif isinstance(child, ast.If | ast.Try | ast.With):
                yield from below(child)

    yield from below(tree(path))


def exempt(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Setters, overloads, overrides and the methods of a stream say nothing that their first form does not."""
    if function.name in ("read", "readinto", "readable", "write", "writable", "seekable", "close", "fileno"):
        return True
    for decorator in function.decorator_list:
        text = ast.unparse(decorator)
        if text.endswith((".setter", "overload", "override")):
            return True
    return False


def test_public_functions_have_docstrings() -> None:
    missing = [
        f"{name_of(path)}:{function.lineno} {function.name}"
        for path in files()
        for function in public_functions(path)
        if ast.get_docstring(function) is None and not exempt(function)
    ]
    assert missing == []


def test_modules_have_docstrings() -> None:
    missing = [name_of(path) for path in files() if tree(path).body and ast.get_docstring(tree(path)) is None]
    assert missing == []


def test_logging_keeps_its_messages_constant() -> None:
    """Facts go into `extra=`; a message with facts in it cannot be searched for."""
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("debug", "info", "warning", "error", "exception", "critical")
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("logger", "log", "_log", "_logger")
        and node.args
        and not isinstance(node.args[0], ast.Constant)
    ]
    assert found == []


def test_every_setting_is_in_the_sample_configuration() -> None:
    """A setting that nobody can find is not one."""
    from dataclasses import fields

    from holdfast.config import Config

    sample = (PROJECT / "packaging" / "holdfast.toml").read_text()
    assert [field.name for field in fields(Config) if not re.search(rf"^#?{field.name} = ", sample, re.MULTILINE)] == []
    named = set(re.findall(r"^#?([a-z_]+) = ", sample, re.MULTILINE))
    assert named - {field.name for field in fields(Config)} == set()


def test_documents_name_files_that_exist() -> None:
    """Links of the documents lead somewhere."""
    broken = []
    for document in [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").rglob("*.md"))]:
        targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
        broken += [f"{name_of(document)}: {target}" for target in targets if not (document.parent / target).exists()]
    assert broken == []


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (PROJECT / "docs" / "decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_dependency_has_a_decision() -> None:
    """A new dependency needs a note that says why."""
    import tomllib

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    names = [re.split(r"[ <>=\[]", text)[0] for text in project["project"]["dependencies"]]
    text = "\n".join(path.read_text() for path in (PROJECT / "docs" / "decisions").glob("*.md"))
    assert [name for name in names if name not in text] == []


def test_lock_files_carry_no_addresses() -> None:
    """Where packages come from is the machine's matter, not the project's."""
    for name in ("runtime.txt", "dev.txt"):
        text = (PROJECT / "requirements" / name).read_text()
        assert "://" not in text
        assert "--index" not in text
        assert not [line for line in text.splitlines() if "==" in line and not line.endswith("\\")], "without a hash"


def test_scripts_are_executable_and_parse() -> None:
    for script in [*sorted((PROJECT / "scripts").glob("*.sh")), PROJECT / ".ci" / "run"]:
        assert script.name == "lib.sh" or script.stat().st_mode & 0o111, name_of(script)
        subprocess.run(["bash", "-n", script], check=True, timeout=20)
