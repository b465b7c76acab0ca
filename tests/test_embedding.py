"""docs/embedding.md: every example runs as it stands and prints what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n(?:(?:\n|[^`\n]+\n)*?```text\n(.*?)```)?", PAGE, re.DOTALL)


def test_every_example_says_what_it_prints() -> None:
    assert len(EXAMPLES) == PAGE.count("```python") == PAGE.count("```text") >= 4
    assert all(code and printed for code, printed in EXAMPLES)


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_example_runs_as_it_stands(index: int, tmp_path: Path) -> None:
    code, printed = EXAMPLES[index]
    script = tmp_path / "example.py"
    script.write_text(code, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env={**env, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, printed), done.stderr
    assert list(tmp_path.iterdir()) == [script], "an example must leave nothing on disk"


@pytest.mark.parametrize("index", range(len(EXAMPLES)))
def test_example_uses_the_public_face_alone(index: int) -> None:
    code, _ = EXAMPLES[index]
    modules = set(re.findall(r"^(?:from|import) (openclaw_gateway[\w.]*)", code, re.MULTILINE))
    public = {
        "openclaw_gateway",
        "openclaw_gateway.agents",
        "openclaw_gateway.client",
        "openclaw_gateway.testing",
        "openclaw_gateway.protocol.errors",
    }
    assert modules <= public
