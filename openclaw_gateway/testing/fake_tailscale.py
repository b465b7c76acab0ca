"""A pretended ``tailscale`` command on top of `fake_tailscaled`: the outputs and exit codes of the genuine one.

Owns argument parsing and texts (spec network-facts 1.2); every fact comes from the daemon over its socket. Standard
library only, so that it starts fast: ``python -I fake_tailscale.py --socket=PATH serve --yes --bg=false 3000``. It must
not know how the daemon decides.

Invariants: ``serve`` in the foreground ends with status 0 and without a word when its claim is taken away, as the
genuine one does; ``--yes`` only suppresses prompts; nothing is ever reset but by ``reset``.
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

DEFAULT_SOCKET = "/var/run/tailscale/tailscaled.sock"


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("local-tailscaled.sock")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


class Daemon:
    """The LocalAPI as this command sees it. Failures end the command with the genuine text."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.version = ""

    def call(
        self,
        method: str,
        name: str,
        *,
        body: str | None = None,
        headers: dict[str, str] | None = None,
        prefix: str = "",
    ) -> tuple[int, bytes, str]:
        endpoint = name.partition("?")[0]
        try:
            connection = _Unix(self.path)
            connection.request(method, f"/localapi/v0/{name}", body=body, headers=headers or {})
            answer = connection.getresponse()
            self.version = answer.getheader("Tailscale-Version") or ""
            etag = answer.getheader("Etag") or ""
            found = answer.status, answer.read(), etag
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            reason = "connection refused" if isinstance(error, ConnectionRefusedError) else "no such file or directory"
            if not isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
                reason = "EOF"
            dial = "" if reason == "EOF" else f"dial unix {self.path}: connect: "
            fail(
                f"{prefix}Failed to connect to local Tailscale daemon for /localapi/v0/{endpoint}; "
                f"not running? Error: {dial}{reason}"
            )
        if found[0] == 503:
            fail(f"{prefix}503 Service Unavailable: {found[1].decode().strip()}")
        return found

    def status(self, *, peers: bool = False) -> dict[str, Any]:
        _, body, _ = self.call("GET", f"status?peers={str(peers).lower()}")
        return dict(json.loads(body))


def fail(text: str) -> NoReturn:
    print(text, file=sys.stderr)
    raise SystemExit(1)


def say(text: str = "") -> None:
    print(text, flush=True)


_NOT_RUNNING = {
    "Stopped": "Tailscale is stopped.",
    "NeedsMachineAuth": "Machine is not yet approved by tailnet admin.",
    "NeedsLogin": "Logged out.",
    "NoState": "Tailscale is starting.",
    "Starting": "Tailscale is starting.",
}


def status(daemon: Daemon, rest: list[str]) -> int:
    peers = "--peers=false" not in rest
    if "--json" in rest:
        _, body, _ = daemon.call("GET", f"status?peers={str(peers).lower()}")
        sys.stdout.write(body.decode())
        return 0
    found = daemon.status(peers=True)
    state = found["BackendState"]
    if state != "Running":
        say(_NOT_RUNNING.get(state, f"unexpected state: {state}"))
        if state == "NeedsLogin" and found["AuthURL"]:
            say(f"Log in at: {found['AuthURL']}")
        return 1
    for node in (found["Self"], *(found["Peer"] or {}).values()):
        say(f"{node['TailscaleIPs'][0]:<15} {node['HostName']:<20} {node['OS']:<7} -")
    return 0


def ip(daemon: Daemon, rest: list[str]) -> int:
    found = daemon.status()
    if not found["TailscaleIPs"]:
        fail(f"no current Tailscale IPs; state: {found['BackendState']}")
    for address in found["TailscaleIPs"]:
        if ("-4" not in rest or ":" not in address) and ("-6" not in rest or ":" in address):
            say(address)
    return 0


def whois(daemon: Daemon, rest: list[str]) -> int:
    address = next(word for word in rest if not word.startswith("-"))
    code, body, _ = daemon.call("GET", f"whois?addr={address}")
    if code == 404:
        fail("peer not found")
    if code != 200:
        fail(body.decode().strip())
    if "--json" in rest:
        say(body.decode())
        return 0
    found = json.loads(body)
    say(f"Machine:\n  Name:  {found['Node']['Name']}\nUser:\n  Name:  {found['UserProfile']['LoginName']}")
    return 0


class Serve:
    """``serve`` and ``funnel``."""

    def __init__(self, daemon: Daemon, kind: str) -> None:
        self.daemon = daemon
        self.kind = kind

    def config(self) -> tuple[dict[str, Any], str]:
        prefix = "error getting serve config: getting serve config: "
        _, body, etag = self.daemon.call("GET", "serve-config", prefix=prefix)
        return json.loads(body) or {}, etag

    def run(self, rest: list[str]) -> int:
        words = [word for word in rest if not word.startswith("-")]
        if words[:1] == ["status"]:
            return self.show("--json" in rest)
        if words[:1] == ["reset"]:
            self.put({}, self.config()[1])
            return 0
        config, etag = self.config()
        found = self.daemon.status()
        if found["BackendState"] != "Running":
            fail(_NOT_RUNNING.get(found["BackendState"], "Tailscale is not running."))
        flags = dict(word.removeprefix("--").partition("=")[::2] for word in rest if word.startswith("--"))
        port = next((int(flags[name]) for name in ("https", "http") if flags.get(name)), 443)
        secure = "http" not in flags
        mount = flags.get("set-path") or "/"
        host = f"{found['Self']['DNSName'].rstrip('.')}:{port}"
        if words[-1:] == ["off"]:
            return self.off(config, etag, host, port, mount)
        self.check_feature(found, port)
        background = "bg" in flags and flags["bg"] != "false"
        part = {
            "TCP": {str(port): {"HTTPS": True} if secure else {"HTTP": True}},
            "Web": {host: {"Handlers": {mount: {"Proxy": _target(words[-1])}}}},
        }
        if self.kind == "funnel":
            part["AllowFunnel"] = {host: True}
        self.guard_ports(config, port, background=background)
        url = f"{'https' if secure else 'http'}://{host.removesuffix(f':{443 if secure else 80}')}{mount}"
        if background:
            return self.background(config, etag, part, url, port)
        return self.foreground(config, etag, part, url)

    def check_feature(self, found: dict[str, Any], port: int) -> None:
        caps = found["Self"].get("CapMap") or {}
        if self.kind == "serve":
            if "https" in caps:
                return
            while True:
                _, body, _ = self.daemon.call("POST", "query-feature?feature=serve")
                answer = json.loads(body)
                if answer["Complete"]:
                    return
                say(f"\n{answer['Text']}")
                if not answer["ShouldWait"]:
                    raise SystemExit(0)
                while not json.loads(self.daemon.call("POST", "query-feature?feature=serve")[1])["Complete"]:
                    time.sleep(0.05)
                return
        if "https" not in caps:
            fail("Funnel not available; HTTPS must be enabled. See https://tailscale.com/s/https.")
        if "funnel" not in caps:
            fail('Funnel not available; "funnel" node attribute not set. See https://tailscale.com/s/no-funnel.')
        allowed = next((cap.partition("ports=")[2] for cap in caps if "funnel-ports" in cap), "")
        if str(port) not in allowed.split(","):
            fail(f"port {port} is not allowed for funnel; allowed ports are: {allowed}")

    def guard_ports(self, config: dict[str, Any], port: int, *, background: bool) -> None:
        """Up to 1.90 the command line looks after conflicts; the daemon takes anything."""
        major, minor = self.daemon.version.split(".")[:2]
        if (int(major), int(minor)) >= (1, 92):
            return
        claims = config.get("Foreground", {}).values()
        if any(str(port) in part.get("TCP", {}) for part in claims):
            fail("foreground already exists under this port")
        if not background and str(port) in config.get("TCP", {}):
            fail("background configuration already exists under this port")

    def put(self, config: dict[str, Any], etag: str) -> None:
        code, body, _ = self.daemon.call("POST", "serve-config", body=json.dumps(config), headers={"If-Match": etag})
        if code == 200:
            return
        text = body.decode().strip()
        if code == 403:
            fail(
                f"sending serve config: Access denied: {text}\n\nUse 'sudo tailscale {' '.join(sys.argv[1:])}'.\n"
                "To not require root, use 'sudo tailscale set --operator=$USER' once."
            )
        if text.startswith("{"):
            text = json.loads(text)["error"]
        fail(f"sending serve config: {text}")

    def background(self, config: dict[str, Any], etag: str, part: dict[str, Any], url: str, port: int) -> int:
        for name, entries in part.items():
            merged = config.setdefault(name, {})
            for key, entry in entries.items():
                if name == "Web" and key in merged:
                    merged[key]["Handlers"].update(entry["Handlers"])
                else:
                    merged[key] = entry
        self.put(config, etag)
        say(self.announcement(part, url))
        say(f"{self.kind.capitalize()} started and running in the background.")
        say(f"To disable the proxy, run: tailscale {self.kind} --https={port} off")
        return 0

    def announcement(self, part: dict[str, Any], url: str) -> str:
        proxied = next(iter(part["Web"].values()))["Handlers"]
        where = "Available on the internet:" if self.kind == "funnel" else "Available within your tailnet:"
        return f"{where}\n\n{url}\n|-- proxy {next(iter(proxied.values()))['Proxy']}\n"

    def foreground(self, config: dict[str, Any], etag: str, part: dict[str, Any], url: str) -> int:
        connection = _Unix(self.daemon.path)
        try:
            connection.request("GET", "/localapi/v0/watch-ipn-bus?mask=2")
            bus = connection.getresponse()
            session = json.loads(bus.readline())["SessionID"]
        except (OSError, http.client.HTTPException):
            fail("error watching IPN bus: EOF")
        config.setdefault("Foreground", {})[session] = part
        self.put(config, etag)
        say(self.announcement(part, url))
        say("Press Ctrl+C to exit.")
        try:
            while bus.readline():
                pass
        except (OSError, http.client.HTTPException, KeyboardInterrupt):
            pass
        return 0

    def off(self, config: dict[str, Any], etag: str, host: str, port: int, mount: str) -> int:
        handlers = config.get("Web", {}).get(host, {}).get("Handlers", {})
        if mount not in handlers:
            fail(
                "error: failed to remove web serve: handler does not exist\n\n"
                f"try `tailscale {self.kind} --help` for usage info"
            )
        del handlers[mount]
        if not handlers:
            del config["Web"][host]
            config.get("TCP", {}).pop(str(port), None)
            config.get("AllowFunnel", {}).pop(host, None)
        self.put(config, etag)
        return 0

    def show(self, as_json: bool) -> int:
        config, _ = self.config()
        if as_json:
            say(json.dumps(config, indent="  "))
            return 0
        if not config.get("Web") and not config.get("TCP"):
            say("No serve config")  # also while a foreground claim is active
            return 0
        for host, web in config.get("Web", {}).items():
            say(f"https://{host.removesuffix(':443')} (tailnet only)")
            for mount, handler in web["Handlers"].items():
                say(f"|-- {mount} proxy {handler.get('Proxy')}")
        return 0


def _target(word: str) -> str:
    if re.fullmatch(r"\d+", word):
        return f"http://127.0.0.1:{word}"
    return word if "://" in word else f"http://{word}"


def main(argv: list[str]) -> int:
    """Run one command; its exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    path, rest = DEFAULT_SOCKET, list(argv)
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0)
        if flag.startswith("--socket="):
            path = flag.partition("=")[2]
    if not rest:
        fail("USAGE\n  tailscale [flags] <subcommand> [command flags]")
    command, rest = rest[0], rest[1:]
    daemon = Daemon(path)
    if command == "version":
        say(daemon.status()["Version"])
        return 0
    if command in {"serve", "funnel"}:
        return Serve(daemon, command).run(rest)
    known = {"status": status, "ip": ip, "whois": whois}
    if command not in known:
        fail(f"unknown subcommand: {command}")
    return known[command](daemon, rest)


def write_command(folder: Path, socket_path: Path) -> Path:
    """An executable ``tailscale`` in ``folder`` that talks to the daemon at ``socket_path``."""
    path = folder / "tailscale"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -I {Path(__file__).resolve()} --socket={socket_path} "$@"\n')
    path.chmod(0o755)
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
