"""protocol/ and policy/ are pure: no trio, clock, randomness, logging or files, through no module of the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import openclaw_gateway.policy
import openclaw_gateway.protocol

ROOT = Path(openclaw_gateway.protocol.__file__).parents[1]
FORBIDDEN = frozenset(
    {
        "asyncio",
        "builtins.open",
        "concurrent",
        "datetime",
        "glob",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "secrets",
        "select",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "trio",
        "uuid",
    }
)
FORBIDDEN_CALLS = frozenset({"open", "input", "print", "exec", "eval", "__import__", "breakpoint"})
MODULES = sorted([*ROOT.glob("protocol/**/*.py"), *ROOT.glob("policy/**/*.py")])


def imported(path: Path) -> set[str]:
    """Full names of what a module imports, wherever in it the statement stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def file_of(module: str) -> Path | None:
    parts = module.split(".")
    if parts[0] != ROOT.name:
        return None
    path = ROOT.joinpath(*parts[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def reached(path: Path) -> set[str]:
    """Everything outside the package that a module comes to import through modules of the package."""
    seen: set[Path] = set()
    outside: set[str] = set()
    todo = [path]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.add(current)
        for name in imported(current):
            inner = file_of(name)
            if inner is not None:
                todo.append(inner)
            elif name.split(".")[0] != ROOT.name:
                outside.add(name.split(".")[0])
    return outside


def test_the_scan_sees_the_modules() -> None:
    assert len(MODULES) > 15
    assert "trio" in imported(Path(__file__).parents[1] / "conftest.py")
    assert "attrs" in reached(ROOT / "policy" / "admission.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_module_is_pure(path: Path) -> None:
    assert not reached(path) & FORBIDDEN
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & FORBIDDEN_CALLS


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_only_light_packages_are_imported_at_module_level(path: Path) -> None:
    heavy = {"cryptography", "bcrypt", "httpx", "json5", "rich", "watchfiles", "trio_websocket", "structlog"}
    top = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = {
        name.split(".")[0]
        for node in top
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert not names & heavy
