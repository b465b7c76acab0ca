"""Reading targets, building argv, and what ssh's own words mean (the lines were recorded from OpenSSH 9.2)."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.tunnels.spec import (
    FATAL,
    Failure,
    SshTarget,
    TunnelRefused,
    TunnelSpec,
    check_name,
    failure_text,
    fix_for,
    parse_target,
    read_line,
    ssh_argv,
)


def spec(**fields: Any) -> TunnelSpec:
    base = {
        "name": "t",
        "target": SshTarget("host", "user"),
        "direction": "local",
        "bind_port": 18789,
        "target_port": 18789,
    }
    return TunnelSpec(**{**base, **fields})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host", SshTarget("host")),
        ("user@host", SshTarget("host", "user")),
        ("user@host:2222", SshTarget("host", "user", 2222)),
        ("host:22", SshTarget("host", None, 22)),
        ("ssh user@host", SshTarget("host", "user")),
        ("me@dom@host", SshTarget("host", "me@dom")),
        ("user@[2001:db8::1]:2222", SshTarget("2001:db8::1", "user", 2222)),
        ("[2001:db8::1]", SshTarget("2001:db8::1")),
        ("2001:db8::1", SshTarget("2001:db8::1")),
        ("fe80::1%eth0", SshTarget("fe80::1%eth0")),
        (" gateway.tail1.ts.net ", SshTarget("gateway.tail1.ts.net")),
    ],
)
def test_a_target_is_read(text: str, expected: SshTarget) -> None:
    assert parse_target(text) == expected
    assert parse_target(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@host",
        "user@",
        "-oProxyCommand=touch x",
        "-oProxyCommand=x@host",
        "user@-oProxyCommand=x",
        "user@host:0",
        "user@host:65536",
        "user@host:",
        "user@host:\uff12\uff12",
        "user@host:22:33x",
        "host;touch x",
        "host\nProxyCommand x",
        "host x",
        "$(touch x)@host",
        "user@`x`",
        "user@%h",
        "[::1",
        "user@[host]x",
        "a" * 300,
    ],
)
def test_v54_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(TunnelRefused):
        parse_target(text)


@given(st.text(max_size=40))
def test_v54_any_text_is_refused_or_safe(text: str) -> None:
    try:
        target = parse_target(text)
    except TunnelRefused:
        return
    argv = ssh_argv(spec(target=target))
    assert argv[-2] == "--"
    assert not argv[-1].startswith("-")
    assert argv[-1].isprintable()
    assert " " not in argv[-1]


@pytest.mark.parametrize("target", [SshTarget("-oProxyCommand=x"), SshTarget("host", "-l"), SshTarget("a b")])
def test_v54_a_target_made_by_hand_is_checked_again(target: SshTarget) -> None:
    with pytest.raises(TunnelRefused):
        ssh_argv(spec(target=target))


@pytest.mark.parametrize("path", ["relative", "/with blank", '/quote"', "/per%hcent", "/new\nline", "/${HOME}/key"])
def test_v54_a_key_file_with_meaning_to_ssh_is_refused(path: str) -> None:
    with pytest.raises(TunnelRefused):
        ssh_argv(spec(identity=path))
    with pytest.raises(TunnelRefused):
        ssh_argv(spec(known_hosts=path))


def options(argv: list[str]) -> dict[str, str]:
    return dict(argv[i + 1].split("=", 1) for i, word in enumerate(argv) if word == "-o")


def test_s132_local_forward_arguments() -> None:
    argv = ssh_argv(spec())
    assert argv[argv.index("-L") + 1] == "127.0.0.1:18789:127.0.0.1:18789"
    assert argv[-2:] == ["--", "user@host"]
    assert argv[:3] == ["ssh", "-N", "-T"]


def test_s134_remote_forward_arguments() -> None:
    argv = ssh_argv(spec(direction="remote", target=SshTarget("host", None, 2222)))
    assert argv[argv.index("-R") + 1] == "127.0.0.1:18789:127.0.0.1:18789"
    assert argv[argv.index("-p") + 1] == "2222"
    assert argv[-1] == "host"


def test_s133_keep_alive_is_60_seconds_by_default() -> None:
    assert options(ssh_argv(spec()))["ServerAliveInterval"] == "60"
    assert options(ssh_argv(spec(alive_interval=5)))["ServerAliveInterval"] == "5"


def test_strict_reads_no_configuration_and_asks_nobody() -> None:
    argv = ssh_argv(spec())
    assert argv[argv.index("-F") + 1] == "none"
    found = options(argv)
    assert found["StrictHostKeyChecking"] == "yes"
    assert found["BatchMode"] == found["ExitOnForwardFailure"] == "yes"
    assert (
        found["ControlMaster"] == found["ForwardAgent"] == found["PermitLocalCommand"] == found["GatewayPorts"] == "no"
    )


def test_openssh_leaves_host_keys_and_aliases_to_the_user() -> None:
    argv = ssh_argv(spec(host_key_policy="openssh"))
    assert "-F" not in argv
    assert "StrictHostKeyChecking" not in options(argv)
    assert options(argv)["BatchMode"] == "yes"


def test_only_loopback_is_listened_on() -> None:
    with pytest.raises(TunnelRefused):
        ssh_argv(spec(bind_host="0.0.0.0"))
    with pytest.raises(TunnelRefused):
        ssh_argv(spec(direction="remote", bind_host="*"))


@pytest.mark.parametrize(
    ("line", "failure"),
    [
        ("@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @", "host-key-changed"),
        ("No ED25519 host key is known for [h]:22 and you have requested strict checking.", "host-key-unknown"),
        ("Host key verification failed.", "host-key-unknown"),
        ("root@127.0.0.1: Permission denied (publickey).", "auth-denied"),
        ('Load key "/k": invalid format', "identity-unusable"),
        ("ssh: Could not resolve hostname nope.invalid: Name or service not known", "unresolved"),
        ("ssh: connect to host 127.0.0.1 port 1: Connection refused", "refused"),
        ("ssh: connect to host 10.9.9.9 port 22: Connection timed out", "timed-out"),
        ("ssh: connect to host 10.9.9.9 port 22: No route to host", "unreachable"),
        ("bind [127.0.0.1]:18789: Address already in use", "port-busy"),
        ("Could not request local forwarding.", "port-busy"),
        ("Error: remote port forwarding failed for listen port 18789", "remote-port-busy"),
        ("Timeout, server 127.0.0.1 not responding.", "dead-peer"),
        ("Connection to 127.0.0.1 closed by remote host.", "connection-lost"),
        ("client_loop: send disconnect: Broken pipe", "connection-lost"),
        ("command-line: line 0: Bad configuration option: nonsense", "bad-option"),
    ],
)  # fmt: skip
def test_stderr_tells_failures_apart(line: str, failure: Failure) -> None:
    word = read_line(line, "local")
    assert word is not None
    assert (word.kind, word.failure) == ("failure", failure)


def test_readiness_is_in_ssh_own_words() -> None:
    assert read_line("debug1: Local forwarding listening on 127.0.0.1 port 40001.", "local") is None, "not bound yet"
    bound = "debug1: channel 0: new port-listener [port listener] (inactive timeout: 0)"
    local = read_line(bound, "local")
    assert local is not None
    assert local.kind == "forwarding"
    chosen = read_line("Allocated port 40002 for remote forward to 127.0.0.1:18789", "remote")
    assert chosen is not None
    assert chosen.port == 40002
    done = read_line("debug1: forwarding_success: all expected forwarding replies received", "remote")
    assert done is not None
    assert done.kind == "forwarding"
    assert read_line(bound, "remote") is None
    said = read_line('Authenticated to h ([1.2.3.4]:22) using "publickey".', "local")
    assert said is not None
    assert said.kind == "authenticated"


def test_a_refused_channel_is_no_end_of_the_tunnel() -> None:
    word = read_line("channel 2: open failed: administratively prohibited: open failed", "local")
    assert word is not None
    assert word.kind == "channel-denied"
    assert read_line("channel 2: open failed: connect failed: Connection refused", "local") is None


@given(st.text(max_size=200), st.sampled_from(["local", "remote"]))
def test_any_line_is_read(line: str, direction: Any) -> None:
    word = read_line(line, direction)
    assert word is None or (word.kind == "failure") == (word.failure is not None)


def test_each_failure_has_its_text_and_its_fix() -> None:
    for failure in get_args(Failure):
        assert failure_text(failure)
        assert "{" not in fix_for(failure, spec())
    assert set(get_args(Failure)) >= FATAL


def test_a_name_is_fit_for_a_file() -> None:
    assert check_name("home-2") == "home-2"
    for bad in ("", "../x", "A", "x/y", "-x", "x" * 65, "a\n"):
        with pytest.raises(TunnelRefused):
            check_name(bad)
