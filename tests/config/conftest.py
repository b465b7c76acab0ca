"""A home of its own for every test: a state directory, an environment of its own, a file writer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from openclaw_gateway.config.load import LoadedConfig, load_config

SEED = """\
// OpenClaw network configuration
{
  gateway: {
    bind: "loopback", // local only, or 0.0.0.0 for all interfaces
    port: 18789,
    mode: "local",
    auth: {
      type: "token",
      token: "${GATEWAY_TOKEN}",
    },
  },
}
"""


@attrs.define
class Home:
    """One user's home: ``write`` the file, ``load`` it."""

    root: Path
    env: dict[str, str]

    @property
    def state(self) -> Path:
        return self.root / ".openclaw"

    @property
    def file(self) -> Path:
        return self.state / "openclaw.json"

    def write(self, text: str, mode: int = 0o600) -> Path:
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.file.write_text(text)
        self.file.chmod(mode)
        return self.file

    def load(self, text: str | None = None, **overrides: object) -> LoadedConfig:
        if text is not None:
            self.write(text)
        dotted = {key.replace("__", "."): value for key, value in overrides.items()}
        return load_config(env=self.env, overrides=dotted)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, {"HOME": str(tmp_path)})


@pytest.fixture
def make_home(tmp_path: Path) -> Callable[[str], Home]:
    def make(name: str) -> Home:
        root = tmp_path / name
        root.mkdir()
        return Home(root, {"HOME": str(root)})

    return make
