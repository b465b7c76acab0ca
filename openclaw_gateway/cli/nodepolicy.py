"""``openclaw node allow|disallow|seal|policy``: what this machine lets a gateway do.

Owns the flags and what is printed. It must not decide anything: `nodes.host.exec_policy` does. Invariant: a program
that runs whatever it is told to is allowed only by ``--force``, with the reason said.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from openclaw_gateway.cli.node import keeping
from openclaw_gateway.cli.output import print_json

if TYPE_CHECKING:
    from openclaw_gateway.nodes.host.exec_policy import ExecPolicy

__all__ = ["allow", "disallow", "policy", "seal"]


@click.command()
@click.argument("programs", nargs=-1)
@click.option("--root", "roots", multiple=True, metavar="FOLDER", help="Let fs.listDir look into this folder.")
@click.option("--env", "names", multiple=True, metavar="NAME", help="Let callers set this variable.")
@click.option("--operator", "operators", multiple=True, metavar="ID", help="Take sealed invokes from this operator.")
@click.option("--mode", type=click.Choice(["deny", "allowlist", "allow"]), help="deny all, by the list, or allow all.")
@click.option("--force", is_flag=True, help="Allow what amounts to allowing everything.")
@click.option("--json", "as_json", is_flag=True, help="Print the policy as JSON.")
def allow(
    programs: tuple[str, ...], roots: tuple[str, ...], names: tuple[str, ...], operators: tuple[str, ...],
    mode: Literal["deny", "allowlist", "allow"] | None, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Allow PROGRAMS (names or absolute paths) to be run here, variables to be set, folders to be listed. It holds at
    once, for a running node too."""
    import attrs

    from openclaw_gateway.nodes.host.errors import CommandFailed, NodeError
    from openclaw_gateway.nodes.host.exec_policy import (
        MAX_ENTRIES,
        ExecPolicy,
        check_env,
        is_launcher,
        load_policy,
        policy_path,
        save_policy,
    )
    from openclaw_gateway.nodes.host.folders import real_folder

    if not (programs or roots or names or operators or mode):
        raise click.UsageError("name a program, or give --root, --env, --operator or --mode")
    if mode == "allow" and not force:
        raise click.UsageError("mode allow gives whoever may invoke this node your whole account; if meant: --force")
    path = policy_path(keeping().directory)
    now = load_policy(path)
    real = [_real_program(name) for name in programs]
    for program in real:
        if is_launcher(program) and not force:
            raise NodeError(
                f"{program} runs whatever it is told to: allowing it allows everything",
                f"if that is meant: openclaw node allow --force {program}",
            )
    for name in names:
        try:
            check_env(ExecPolicy(env=(name,)), name)
        except CommandFailed as error:
            raise NodeError(error.message) from error
    new = attrs.evolve(
        now,
        mode=mode or now.mode,
        programs=_with(now.programs, [str(program) for program in real]),
        env=_with(now.env, names),
        roots=_with(now.roots, [real_folder(root) for root in roots]),
        operators=_with(now.operators, [_device_id(operator) for operator in operators]),
    )
    if max(len(new.programs), len(new.env), len(new.roots), len(new.operators)) > MAX_ENTRIES:
        raise NodeError(f"over {MAX_ENTRIES} entries", "openclaw node disallow <program>")
    save_policy(path, new)
    _show(new, path, as_json=as_json)


@click.command()
@click.argument("programs", nargs=-1)
@click.option("--root", "roots", multiple=True, metavar="FOLDER", help="No longer list this folder.")
@click.option("--env", "names", multiple=True, metavar="NAME", help="No longer let callers set this variable.")
@click.option("--operator", "operators", multiple=True, metavar="ID", help="No longer take this operator's.")
@click.option("--all", "everything", is_flag=True, help="Take back everything: mode deny, empty lists.")
@click.option("--json", "as_json", is_flag=True, help="Print the policy as JSON.")
def disallow(
    programs: tuple[str, ...], roots: tuple[str, ...], names: tuple[str, ...], operators: tuple[str, ...],
    everything: bool, as_json: bool,
) -> None:  # fmt: skip
    """Take back PROGRAMS (names, or paths as `node policy` shows them), variables and folders. It holds at once; what
    runs already runs on."""
    import attrs

    from openclaw_gateway.nodes.host.errors import NodeError
    from openclaw_gateway.nodes.host.exec_policy import ExecPolicy, load_policy, policy_path, save_policy
    from openclaw_gateway.nodes.host.lookup import resolve_program, search_path

    path = policy_path(keeping().directory)
    now = load_policy(path)
    gone = {str(resolve_program(name, search_path()) or name) for name in programs} | set(programs)
    folders = {str(Path(root).expanduser().resolve()) for root in roots} | set(roots)
    new = attrs.evolve(
        now,
        programs=tuple(program for program in now.programs if program not in gone),
        env=tuple(name for name in now.env if name not in names),
        roots=tuple(root for root in now.roots if root not in folders),
        operators=tuple(one for one in now.operators if one not in operators),
    )
    if now.operators and not new.operators:
        raise NodeError(
            "without the last of them everybody's sealed invokes would be taken",
            f"openclaw node allow --operator <another>, or edit {path}",
        )
    if everything:
        new = ExecPolicy(mode="deny", sealed_only=now.sealed_only, operators=now.operators)
    elif new == now:
        raise NodeError("nothing of that was allowed", "openclaw node policy")
    save_policy(path, new)
    _show(new, path, as_json=as_json)


@click.command()
@click.argument("commands", nargs=-1, required=True)
@click.option("--operator", "operators", multiple=True, metavar="ID", help="Take them from this operator.")
@click.option("--lift", is_flag=True, help="Take these commands unsealed again.")
@click.option("--json", "as_json", is_flag=True, help="Print the policy as JSON.")
def seal(commands: tuple[str, ...], operators: tuple[str, ...], lift: bool, as_json: bool) -> None:
    """Refuse COMMANDS (such as system.run, or '*' for all) unless they come sealed, and then take them only from the
    operators that are named. The operator's id: openclaw nodes keys (on the operator's machine)."""
    import attrs

    from openclaw_gateway.nodes.host.commands import COMMANDS
    from openclaw_gateway.nodes.host.errors import NodeError
    from openclaw_gateway.nodes.host.exec_policy import MAX_ENTRIES, load_policy, policy_path, save_policy

    unknown = [command for command in commands if command not in {*COMMANDS, "*"}]
    if unknown:
        raise NodeError(f"this node has no command {unknown[0]}", f"choose among {', '.join(COMMANDS)} or '*'")
    path = policy_path(keeping().directory)
    now = load_policy(path)
    if lift:
        new = attrs.evolve(now, sealed_only=tuple(one for one in now.sealed_only if one not in commands))
        if new == now:
            raise NodeError("none of that had to come sealed", "openclaw node policy")
    else:
        named = _with(now.operators, [_device_id(operator) for operator in operators])
        if not named:
            raise NodeError(
                "a gateway that lies can make keys of its own, so the operators have to be named",
                f"openclaw node seal {commands[0]} --operator <id>   (it is shown by: openclaw nodes keys)",
            )
        if len(named) > MAX_ENTRIES:
            raise NodeError(f"over {MAX_ENTRIES} entries", "openclaw node disallow --operator <id>")
        new = attrs.evolve(now, sealed_only=_with(now.sealed_only, commands), operators=named)
    save_policy(path, new)
    _show(new, path, as_json=as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def policy(as_json: bool) -> None:
    """What this machine allows, whatever a gateway approved."""
    from openclaw_gateway.nodes.host.exec_policy import load_policy, policy_path

    path = policy_path(keeping().directory)
    _show(load_policy(path), path, as_json=as_json)


def _real_program(name: str) -> Path:
    from openclaw_gateway.nodes.host.errors import NodeError
    from openclaw_gateway.nodes.host.lookup import resolve_program, search_path

    found = resolve_program(name, search_path())
    if found is None:
        raise NodeError(f"{name} is no program here", "give its absolute path")
    return found


def _device_id(text: str) -> str:
    plain = text.strip().lower()
    if len(plain) != 64 or set(plain) - set("0123456789abcdef"):
        raise click.BadParameter("must be a device id: 64 hex digits", param_hint="--operator")
    return plain


def _with(had: tuple[str, ...], new: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*had, *new)))


def _show(found: ExecPolicy, path: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "mode": found.mode, "programs": found.programs, "env": found.env, "roots": found.roots,
                "sealedOnly": found.sealed_only, "operators": found.operators, "file": str(path),
            }
        )  # fmt: skip
        return
    click.echo(f"mode: {found.mode}   ({path})")
    for title, items in (
        ("programs", found.programs), ("variables", found.env), ("folders", found.roots),
        ("only sealed", found.sealed_only), ("sealed from", found.operators),
    ):  # fmt: skip
        click.echo(f"{title}: {'none' if not items else ''}".rstrip())
        for item in items:
            click.echo(f"  {item}")
