"""What a tunnel is, the arguments ssh gets for it, and what ssh's own words mean. Pure.

Owns reading ``user@host:port``, the argv, and the classification of ssh's stderr. It must not start anything.

Invariants (attack V54): a host or user that ssh could take for an option, and any character that has no place in a
name, is refused; the destination stands behind ``--``; only loopback is listened on. Not the exit status but stderr
tells failures apart: ssh says 255 for nearly all of them and 0 after SIGTERM. The words are those of OpenSSH 9.2, in
English: ssh does not translate its own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Final, Literal

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.value import Value

__all__ = [
    "FATAL",
    "Direction",
    "Failure",
    "HostKeyPolicy",
    "SshTarget",
    "TunnelRefused",
    "TunnelSpec",
    "Word",
    "check_file",
    "check_name",
    "failure_text",
    "fix_for",
    "parse_target",
    "read_line",
    "ssh_argv",
]

Direction = Literal["local", "remote"]
HostKeyPolicy = Literal["strict", "openssh"]
Failure = Literal[
    "host-key-changed",
    "host-key-unknown",
    "auth-denied",
    "identity-unusable",
    "bad-option",
    "unresolved",
    "refused",
    "unreachable",
    "timed-out",
    "port-busy",
    "remote-port-busy",
    "forwarding-denied",
    "dead-peer",
    "connection-lost",
    "probe-failed",
    "no-ssh",
    "ended",
]

# Trying again changes nothing before a person has acted: no fast loop (network-facts section 2).
FATAL: Final[frozenset[Failure]] = frozenset(
    {
        "host-key-changed",
        "host-key-unknown",
        "auth-denied",
        "identity-unusable",
        "bad-option",
        "port-busy",
        "forwarding-denied",
        "no-ssh",
    }
)

_HOST: Final = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,32})?)")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@\\+-]{0,63}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PORTS: Final = range(1, 65_536)


@attrs.define(eq=False)
class TunnelRefused(GatewayError):
    """A tunnel that is not opened because of how it was asked for. ``fix``: what to do about it."""

    message: str
    fix: str

    def __str__(self) -> str:
        return self.message


@attrs.frozen(eq=False, repr=False)
class SshTarget(Value):
    """Where ssh goes. ``port`` None: ssh's own choice (22, or what the user's configuration says)."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        return f"{self.user + '@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"


def parse_target(text: str) -> SshTarget:
    """``[user@]host[:port]``, an IPv6 literal in brackets where a port follows; ``ssh user@host`` is understood too.

    Raises `TunnelRefused`.
    """
    rest = text.strip().removeprefix("ssh ").strip()
    user, at, place = rest.rpartition("@")
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", place)
    if bracketed is not None:
        host, port = bracketed[1], bracketed[2]
    elif place.count(":") > 1:
        host, port = place, None
    else:
        host, colon, tail = place.partition(":")
        port = tail if colon else None
    if at and not user:
        raise _no_target("the user is empty")
    number: int | None = None
    if port is not None:
        if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) in _PORTS):
            raise _no_target("the port is not a number from 1 to 65535")
        number = int(port)
    target = SshTarget(host, user or None, number)
    _check_target(target)
    return target


def _no_target(why: str) -> TunnelRefused:
    return TunnelRefused(f"not an ssh target: {why}", "give user@host or user@host:port")


def _check_target(target: SshTarget) -> None:
    if _HOST.fullmatch(target.host) is None:
        raise _no_target("the host is not a host name or address")
    if target.user is not None and _USER.fullmatch(target.user) is None:
        raise _no_target("the user is not a user name")


def check_name(name: str) -> str:
    """A tunnel's name: it becomes part of a file's name. Raises `TunnelRefused`."""
    if _NAME.fullmatch(name) is None:
        raise TunnelRefused(
            "a tunnel's name holds only small letters, digits, dots, dashes and underscores, 64 at most",
            "give another --name",
        )
    return name


def check_file(path: str) -> str:
    """A file's name as ssh takes it: a percent sign is a token of its own in there, a quote or blank would end it.

    Raises `TunnelRefused`.
    """
    if not path.startswith("/") or not path.isprintable() or set(path) & set("%\"'\\ $"):
        fix = "give an absolute path without blanks, quotes, backslashes, % and $"
        raise TunnelRefused("the name of a key file is not one that ssh takes as it stands", fix)
    return path


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TunnelSpec(Value):
    """One forwarding.

    ``direction`` local: ``bind_port`` is listened on here and leads to ``target_port`` as the ssh host sees it (-L).
    Remote: ``bind_port`` is listened on over there and leads to ``target_port`` as this host sees it (-R); 0 lets the
    other side choose. Both ends are loopback. Times in seconds.
    """

    name: str
    target: SshTarget
    direction: Direction
    bind_port: int
    target_port: int
    bind_host: str = "127.0.0.1"
    target_host: str = "127.0.0.1"
    identity: str | None = None
    host_key_policy: HostKeyPolicy = "strict"
    known_hosts: str | None = None
    alive_interval: int = 60
    alive_count: int = 3
    connect_timeout: int = 10

    @property
    def forwarding(self) -> str:
        """``bind:port:target:port``, as ssh's -L and -R take it."""
        return f"{self.bind_host}:{self.bind_port}:{_bracketed(self.target_host)}:{self.target_port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def ssh_argv(spec: TunnelSpec, *, program: str = "ssh") -> list[str]:
    """The arguments for ``spec``. Raises `TunnelRefused` for what must not reach ssh.

    With host keys ``strict`` no configuration file is read: only known keys, only the options named here. ``openssh``
    leaves aliases, jumps and the checking of host keys to the user's own configuration.
    """
    _check_target(spec.target)
    for path in (spec.identity, spec.known_hosts):
        if path is not None:
            check_file(path)
    if spec.bind_host not in {"127.0.0.1", "localhost"} or _HOST.fullmatch(spec.target_host) is None:
        raise TunnelRefused("only loopback is listened on", "leave the bind address out")
    argv = [program, "-N", "-T"]
    options: dict[str, str | int] = {
        "BatchMode": "yes",
        "ExitOnForwardFailure": "yes",
        "ServerAliveInterval": spec.alive_interval,
        "ServerAliveCountMax": spec.alive_count,
        "ConnectTimeout": spec.connect_timeout,
        "ControlMaster": "no",
        "ControlPath": "none",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "PermitLocalCommand": "no",
        "GatewayPorts": "no",
        "LogLevel": "DEBUG1",
    }
    if spec.host_key_policy == "strict":
        argv += ["-F", "none"]
        options["StrictHostKeyChecking"] = "yes"
        options["UpdateHostKeys"] = "no"
    if spec.known_hosts is not None:
        options["UserKnownHostsFile"] = spec.known_hosts
    if spec.identity is not None:
        options["IdentitiesOnly"] = "yes"
    for name, value in options.items():
        argv += ["-o", f"{name}={value}"]
    if spec.identity is not None:
        argv += ["-i", spec.identity]
    if spec.target.port is not None:
        argv += ["-p", str(spec.target.port)]
    argv += ["-L" if spec.direction == "local" else "-R", spec.forwarding, "--"]
    argv.append(f"{spec.target.user}@{spec.target.host}" if spec.target.user else spec.target.host)
    return argv


@attrs.frozen(eq=False, repr=False)
class Word(Value):
    """What one line of ssh's stderr says: a step on the way up, or a failure."""

    kind: Literal["connected", "authenticated", "forwarding", "channel-denied", "failure"]
    failure: Failure | None = None
    port: int | None = None


# In this order: the first that matches counts.
_PATTERNS: Final[tuple[tuple[str, Failure], ...]] = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|^Host key for .+ has changed", "host-key-changed"),
    (r"^WARNING: REVOKED HOST KEY DETECTED|is marked as revoked", "host-key-changed"),
    (r"host key is known for .+ and you have requested strict checking", "host-key-unknown"),
    (r"^Host key verification failed", "host-key-unknown"),
    (r"^Received disconnect from .+Too many authentication failures", "auth-denied"),
    (r"Permission denied \(", "auth-denied"),
    (r"^Load key .+: |^Permissions .+ are too open|^no such identity: ", "identity-unusable"),
    (r"Bad configuration option|^unknown option|^usage: ssh|^Bad (?:local|remote) forwarding", "bad-option"),
    (r"Could not resolve hostname", "unresolved"),
    (r"^bind \[.+\]:\d+: Address already in use|^channel_setup_fwd_listener.+cannot listen", "port-busy"),
    (r"^bind \[.+\]:\d+: Permission denied|^Could not request local forwarding", "port-busy"),
    (r"remote port forwarding failed for listen port", "remote-port-busy"),
    (r"^Remote port forwarding not allowed", "forwarding-denied"),
    (r"^Timeout, server .+ not responding", "dead-peer"),
    (r"^ssh: connect to host .+: Connection refused", "refused"),
    (r"^ssh: connect to host .+: Connection timed out|timed out during banner exchange", "timed-out"),
    (r"^ssh: connect to host .+ port", "unreachable"),
    (r"^kex_exchange_identification: |^Connection (?:closed|reset) by|^Connection to .+ closed", "connection-lost"),
    (r"^client_loop: send disconnect|^Read from remote host|^Received disconnect from", "connection-lost"),
)  # fmt: skip
_FAILURES: Final = tuple((re.compile(pattern), failure) for pattern, failure in _PATTERNS)
_CONNECTED: Final = re.compile(r"^debug1: Connection established\.")
_AUTHENTICATED: Final = re.compile(r"^Authenticated to .+ using ")
_DENIED: Final = re.compile(r"^channel \d+: open failed: administratively prohibited")
_ALLOCATED: Final = re.compile(r"^Allocated port (\d{1,5}) for remote forward to ")
_FORWARDED: Final = re.compile(r"^debug1: forwarding_success: all expected forwarding replies received")
# "Local forwarding listening on ..." comes before bind(2) and listen(2): it promises nothing yet.
_LISTENING: Final = re.compile(r"^debug1: channel \d+: new .*port.listener")


def read_line(line: str, direction: Direction) -> Word | None:
    """What one line of stderr says, None for nothing of interest."""
    if _DENIED.search(line):
        return Word("channel-denied")
    if not line.startswith("debug1: "):
        for pattern, failure in _FAILURES:
            if pattern.search(line):
                return Word("failure", failure)
    if _CONNECTED.search(line):
        return Word("connected")
    if _AUTHENTICATED.search(line):
        return Word("authenticated")
    return _forwarding(line, direction)


def _forwarding(line: str, direction: Direction) -> Word | None:
    if direction == "local":
        return Word("forwarding") if _LISTENING.search(line) else None
    found = _ALLOCATED.search(line)
    if found is not None:
        return Word("forwarding", port=int(found[1]))
    return Word("forwarding") if _FORWARDED.search(line) else None


_TEXTS: Final[Mapping[Failure, str]] = {
    "host-key-changed": "the ssh host shows another key than the known one: someone may be in between",
    "host-key-unknown": "the key of the ssh host is not known here",
    "auth-denied": "the ssh host does not accept our key",
    "identity-unusable": "the key file cannot be used by ssh",
    "bad-option": "ssh does not understand an option",
    "unresolved": "the name of the ssh host has no address",
    "refused": "nothing listens on the ssh host's port (connection refused)",
    "unreachable": "the ssh host cannot be reached",
    "timed-out": "the ssh host does not answer",
    "port-busy": "the port that the tunnel wants here is taken",
    "remote-port-busy": "the port that the tunnel wants on the ssh host is taken, or the host does not give it",
    "forwarding-denied": "the ssh host does not allow port forwarding",
    "dead-peer": "the ssh host stopped answering",
    "connection-lost": "the ssh connection was lost",
    "probe-failed": "ssh is up, but no gateway answers at the tunnel's end",
    "no-ssh": "ssh cannot be started on this host",
    "ended": "ssh ended without a word",
}


def failure_text(failure: Failure) -> str:
    """What a failure means, for a person."""
    return _TEXTS[failure]


def fix_for(failure: Failure, spec: TunnelSpec) -> str:
    """The one command, or act, that mends a failure of ``spec``."""
    target, port = spec.target, f"-p {spec.target.port} " if spec.target.port else ""
    identity = f"-i {shlex.quote(spec.identity)} " if spec.identity else ""
    keys = f"-o {shlex.quote(f'UserKnownHostsFile={spec.known_hosts}')} " if spec.known_hosts else ""
    login = f"ssh {port}{identity}{keys}{_login(target)}"
    file = f" -f {shlex.quote(spec.known_hosts)}" if spec.known_hosts else ""
    known = f"[{target.host}]:{target.port}" if target.port not in (None, 22) else target.host
    fixes: dict[Failure, str] = {
        "host-key-changed": f"only if the host was set up anew: ssh-keygen -R '{known}'{file}, then: {login}",
        "host-key-unknown": f"{login} true   (shows the key; compare it before you accept it)",
        "auth-denied": f"ssh-copy-id {port}{_login(target)}   (or name the right key: sshIdentity, --identity)",
        "identity-unusable": f"ls -l {spec.identity or '~/.ssh'}   (the key must be there, yours alone: chmod 600)",
        "bad-option": "ssh -V   (OpenSSH 7.6 or later is needed)",
        "unresolved": f"getent hosts {target.host}   (check the name)",
        "refused": f"start sshd on {target.host}, or give its port: user@host:port",
        "unreachable": f"ping -c1 {target.host}   (check the network in between)",
        "timed-out": f"ping -c1 {target.host}   (check the network and firewalls in between)",
        "port-busy": f"ss -ltnp 'sport = :{spec.bind_port}'   (stop that program, or choose another port)",
        "remote-port-busy": f"{login} ss -ltn 'sport = :{spec.bind_port}'   (or choose another port)",
        "forwarding-denied": f"set AllowTcpForwarding yes in sshd_config on {target.host}",
        "dead-peer": f"{login} true   (is the host up?)",
        "connection-lost": f"{login} true   (is the host up?)",
        "probe-failed": f"{login} openclaw gateway status" if spec.direction == "local" else "openclaw gateway status",
        "no-ssh": "install an ssh client (Debian: apt-get install openssh-client)",
        "ended": f"{login} -v true",
    }  # fmt: skip
    return fixes[failure]


def _login(target: SshTarget) -> str:
    return f"{target.user}@{target.host}" if target.user else target.host
