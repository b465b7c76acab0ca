"""What this machine allows: default-deny, by real path, and folders only inside their roots."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest

from openclaw_gateway.nodes.host import folders
from openclaw_gateway.nodes.host.errors import CommandFailed, NodeError
from openclaw_gateway.nodes.host.exec_policy import (
    MAX_ENTRIES,
    ExecPolicy,
    check_env,
    check_program,
    is_launcher,
    load_policy,
    policy_path,
    save_policy,
)
from openclaw_gateway.nodes.host.folders import list_folder, real_folder
from openclaw_gateway.nodes.host.lookup import find_program, resolve_program, search_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return policy_path(tmp_path / "node")


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def program(folder: Path, name: str = "tool", mode: int = 0o755) -> Path:
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(mode)
    return file.resolve()


def test_no_file_allows_nothing_and_the_refusal_names_the_command(path: Path, tmp_path: Path) -> None:
    policy = load_policy(path)
    assert policy == ExecPolicy()
    tool = program(tmp_path)
    with pytest.raises(CommandFailed, match=f"openclaw node allow {tool}") as refused:
        check_program(policy, tool)
    assert refused.value.code == "SYSTEM_RUN_DENIED"


def test_modes(tmp_path: Path) -> None:
    tool = program(tmp_path)
    check_program(ExecPolicy(programs=(str(tool),)), tool)
    check_program(ExecPolicy(mode="allow"), tool)
    with pytest.raises(CommandFailed):
        check_program(ExecPolicy(mode="deny", programs=(str(tool),)), tool)


def test_a_program_that_everybody_can_change_never_runs(tmp_path: Path) -> None:
    tool = program(tmp_path, mode=0o757)
    with pytest.raises(CommandFailed, match="chmod"):
        check_program(ExecPolicy(mode="allow"), tool)


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "{mode: 'full'}", "{programs: 'ls'}", "{programs: ['ls']}", "{roots: ['data']}", "{program: []}",
        "{env: [1]}", '{"programs": [' + ",".join(['"/a"'] * (MAX_ENTRIES + 1)) + "]}",
    ],
)  # fmt: skip
def test_a_file_that_is_not_understood_as_a_whole_allows_nothing(path: Path, text: str) -> None:
    write(path, text)
    with pytest.raises(NodeError, match="nothing is allowed"):
        load_policy(path)


def test_a_file_that_others_may_write_allows_nothing(path: Path) -> None:
    write(path, "{mode: 'allow'}", 0o666)
    with pytest.raises(NodeError, match="nothing is allowed"):
        load_policy(path)


def test_saving_keeps_comments_and_privacy(path: Path) -> None:
    save_policy(path, ExecPolicy(programs=("/usr/bin/a",)))
    write(path, path.read_text().replace("  programs:", "  // mine\n  programs:"))
    save_policy(path, attrs.evolve(load_policy(path), roots=("/srv",), mode="allow"))
    assert "// mine" in path.read_text()
    assert load_policy(path) == ExecPolicy(mode="allow", programs=("/usr/bin/a",), roots=("/srv",))
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["LANG", "LC_ALL", "TZ", "MY_OWN"])
def test_harmless_and_named_variables_may_be_set(name: str) -> None:
    check_env(ExecPolicy(env=("MY_OWN",)), name)


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD", "ld_preload", "PATH", "BASH_ENV", "ENV", "IFS", "PYTHONPATH", "NODE_OPTIONS", "GIT_SSH_COMMAND",
        "OPENCLAW_GATEWAY_TOKEN", "DYLD_INSERT_LIBRARIES", "A=B", "", "A B", "BASH_FUNC_x%%",
    ],
)  # fmt: skip
def test_v54_variables_that_change_what_runs_are_refused_even_when_listed(name: str) -> None:
    with pytest.raises(CommandFailed):
        check_env(ExecPolicy(mode="allow", env=(name,)), name)


def test_other_variables_need_to_be_named() -> None:
    with pytest.raises(CommandFailed, match="openclaw node allow --env MY_OWN"):
        check_env(ExecPolicy(), "MY_OWN")


@pytest.mark.parametrize("name", ["sh", "bash", "busybox", "env", "python3.11", "node", "sudo", "find", "ssh"])
def test_launchers_are_known(name: str) -> None:
    assert is_launcher(Path("/usr/bin") / name)


def test_ordinary_programs_are_no_launchers() -> None:
    assert not any(is_launcher(Path("/usr/bin") / name) for name in ("uname", "ls", "date", "df", "shred", "finder"))


def test_programs_are_judged_by_the_real_file(tmp_path: Path) -> None:
    tool = program(tmp_path, "real-tool")
    (tmp_path / "link").symlink_to(tool)
    assert resolve_program("link", str(tmp_path)) == tool
    assert resolve_program(str(tmp_path / "link"), "") == tool
    for bad in ("./real-tool", "sub/real-tool", "..", "", "no-such", "a\0b", str(tmp_path)):
        assert resolve_program(bad, str(tmp_path)) is None


def test_which_looks_only_into_absolute_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path)
    program(tmp_path, "plain", 0o644)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f".::{tmp_path}:relative")
    assert search_path() == str(tmp_path)
    assert find_program("tool", search_path()) == str(tmp_path / "tool")
    assert find_program("plain", search_path()) is None
    assert find_program(f"../{tmp_path.name}/tool", search_path()) is None


# --- fs.listDir


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("root/b", "root/a/deep", "root/.hidden", "outside/secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root" / "file").write_text("x")
    (tmp_path / "root" / "way-out").symlink_to(tmp_path / "outside")
    return Path(real_folder(str(tmp_path / "root")))


def test_folders_are_listed_as_officials_expect(root: Path) -> None:
    listing = list_folder([str(root)], None)
    assert [entry["name"] for entry in listing["entries"]] == ["a", "b", ".hidden"]
    assert listing["entries"][2] == {"name": ".hidden", "path": str(root / ".hidden"), "hidden": True}
    assert "parent" not in listing
    inner = list_folder([str(root)], str(root / "a"))
    assert (inner["path"], inner["parent"], inner["home"]) == (str(root / "a"), str(root), str(root))


def test_without_roots_nothing_is_listed() -> None:
    with pytest.raises(CommandFailed, match="openclaw node allow --root"):
        list_folder([], "/")


def test_nothing_outside_the_roots_is_listed(root: Path) -> None:
    outside = root.parent / "outside"
    for asked in (
        "/", str(root.parent), str(outside), f"{root}/../outside", f"{root}/way-out", f"{root}/way-out/secret",
        f"{root}-other", "a", f"{root}/a\0", f"{root}/file", f"{root}/no-such",
    ):  # fmt: skip
        with pytest.raises(CommandFailed):
            list_folder([str(root)], asked)


def test_a_folder_swapped_for_a_link_during_the_walk_leads_nowhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classic race: the step was a folder when it was named and is a link when it is opened."""
    real_open = os.open
    swapped: list[bool] = []

    def open_and_swap(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "deep" and not swapped:
            swapped.append(True)
            (root / "a" / "deep").rmdir()
            (root / "a" / "deep").symlink_to(root.parent / "outside")
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_and_swap)
    with pytest.raises(CommandFailed):
        list_folder([str(root)], str(root / "a" / "deep"))
    assert swapped


def test_listings_are_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_LISTED", 1)
    listing = list_folder([str(root)], None)
    assert (len(listing["entries"]), listing["truncated"]) == (1, True)


def test_the_innermost_root_counts(root: Path) -> None:
    listing = list_folder([str(root), str(root / "a")], str(root / "a" / "deep"))
    assert listing["home"] == str(root / "a")
