"""A change on probation: durable before it is made, undone exactly, and never at the cost of somebody else's edit."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_gateway.config import pending as module
from openclaw_gateway.config.edit import set_value, unset_value
from openclaw_gateway.config.issues import ConfigError
from openclaw_gateway.config.json5 import Json5Error, loads
from openclaw_gateway.config.paths import pending_path
from openclaw_gateway.config.pending import (
    Pending,
    PendingExists,
    PendingUnreadable,
    close_pending,
    propose,
    read_pending,
    settle_before_start,
    undo,
)

NOW = 1_800_000_000_000
BEFORE = '// mine\n{\n  gateway: {\n    port: 18789, // ours\n  },\n  logging: { level: "info" },\n}\n'


@attrs.frozen
class Place:
    state: Path

    @property
    def file(self) -> Path:
        return self.state / "openclaw.json"

    @property
    def env(self) -> dict[str, str]:
        return {"OPENCLAW_STATE_DIR": str(self.state), "HOME": str(self.state)}

    def write(self, text: str) -> None:
        self.file.write_text(text)
        self.file.chmod(0o600)

    def propose(self, path: str = "gateway.bind", value: object = "lan", *, now_ms: int = NOW) -> Pending:
        raw = self.file.read_text() if self.file.exists() else ""
        edited = set_value(raw, path, value)
        return propose(self.state, self.file, edited, env=self.env, window=60, now_ms=now_ms)[0]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    found = Place(state)
    found.write(BEFORE)
    return found


def test_a_change_on_probation_is_recorded_privately_and_goes_back_to_the_very_bytes(place: Place) -> None:
    made = place.propose()
    assert loads(place.file.read_text())["gateway"]["bind"] == "lan"
    assert pending_path(place.state).stat().st_mode & 0o777 == 0o600
    assert read_pending(place.state) == made
    assert made.keys == ("gateway.bind",)
    assert "18789" not in repr(made)
    assert undo(made, env=place.env) == "restored"
    assert place.file.read_text() == BEFORE
    assert undo(made, env=place.env) == "nothing"


def test_the_record_is_on_the_disk_before_the_change(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*arguments: object, **named: object) -> None:
        found = read_pending(place.state)
        assert found is not None
        assert place.file.read_text() == found.before == BEFORE
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_config", dies)
    with pytest.raises(KeyboardInterrupt):
        place.propose()
    assert read_pending(place.state) is None


def test_a_refused_change_leaves_nothing_behind(place: Place) -> None:
    with pytest.raises(ConfigError):
        place.propose("gateway.port", "many")
    assert read_pending(place.state) is None
    assert place.file.read_text() == BEFORE


def test_only_one_change_waits_at_a_time(place: Place) -> None:
    place.propose()
    with pytest.raises(PendingExists) as refused:
        place.propose("gateway.port", 1234, now_ms=NOW + 20_000)
    assert (refused.value.keys, refused.value.left_ms) == (("gateway.bind",), 40_000)
    assert "openclaw config confirm" in refused.value.fix
    assert loads(place.file.read_text())["gateway"]["port"] == 18789
    close_pending(place.state)
    close_pending(place.state)
    place.propose("gateway.port", 1234)


def test_a_maker_that_died_before_his_change_is_in_nobodys_way(place: Place) -> None:
    place.propose()
    place.write(BEFORE)
    with pytest.raises(PendingExists):
        place.propose("gateway.port", 1234, now_ms=NOW + 59_000)
    place.propose("gateway.port", 1234, now_ms=NOW + 60_000)


def test_an_edit_in_between_is_not_destroyed(place: Place) -> None:
    made = place.propose()
    place.write(set_value(place.file.read_text(), "logging.level", "debug"))
    assert undo(made, env=place.env) == "reverted"
    text = place.file.read_text()
    assert loads(text) == {"gateway": {"port": 18789}, "logging": {"level": "debug"}}
    assert "// mine" in text
    assert "// ours" in text


def test_a_later_decision_about_the_same_setting_stands(place: Place) -> None:
    made = place.propose()
    place.write(set_value(place.file.read_text(), "gateway.bind", "tailnet"))
    text = place.file.read_text()
    assert undo(made, env=place.env) == "superseded"
    assert place.file.read_text() == text


def test_a_setting_that_was_removed_comes_back(place: Place) -> None:
    place.write('{ gateway: { auth: { type: "none" }, bind: "loopback" } }')
    edited, _ = unset_value(place.file.read_text(), "gateway.auth.type")
    made, _, _ = propose(place.state, place.file, edited, env=place.env, window=60, now_ms=NOW)
    place.write(set_value(place.file.read_text(), "gateway.port", 1))
    assert undo(made, env=place.env) == "reverted"
    assert loads(place.file.read_text())["gateway"] == {"auth": {"type": "none"}, "bind": "loopback", "port": 1}


def test_where_there_was_no_file_there_is_an_empty_one_again(place: Place) -> None:
    place.file.unlink()
    made = place.propose()
    assert undo(made, env=place.env) == "restored"
    assert loads(place.file.read_text()) == {}
    assert undo(made, env=place.env) == "nothing"


def test_a_file_that_cannot_be_edited_is_not_touched(place: Place) -> None:
    made = place.propose()
    place.write("{ gateway: ")
    with pytest.raises(Json5Error):
        undo(made, env=place.env)
    assert place.file.read_text() == "{ gateway: "


def test_a_start_undoes_what_ran_out_and_leaves_word(place: Place) -> None:
    assert settle_before_start(place.env, NOW) is None
    place.propose()
    assert settle_before_start(place.env, NOW + 59_999) is None
    assert loads(place.file.read_text())["gateway"]["bind"] == "lan"
    settled = settle_before_start(place.env, NOW + 60_000)
    assert settled is not None
    assert settled.undone == "restored"
    assert place.file.read_text() == BEFORE
    assert read_pending(place.state) == settled
    assert settle_before_start(place.env, NOW + 61_000) is None  # once is enough


def test_a_clock_that_was_set_back_gives_at_most_the_whole_window_again(place: Place) -> None:
    made = place.propose()
    assert made.left_ms(NOW - 10_000_000) == 60_000
    assert made.left_ms(NOW + 10_000_000) == 0


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"id": 1}', b"\xff"])
def test_a_record_that_cannot_be_read_is_trouble_and_no_absence(data: bytes, place: Place) -> None:
    place.propose()
    pending_path(place.state).write_bytes(data)
    with pytest.raises(PendingUnreadable) as trouble:
        read_pending(place.state)
    assert "openclaw.json.bak" in trouble.value.fix
    assert settle_before_start(place.env, NOW + 100_000) is None
    assert pending_path(place.state).exists()


PATHS = st.sampled_from(["gateway.bind", "gateway.port", "gateway.trustedProxies", "logging.level", "logging.backups"])
VALUES = {
    "gateway.bind": st.sampled_from(["loopback", "lan", "127.0.0.1"]),
    "gateway.port": st.integers(1, 9),
    "gateway.trustedProxies": st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2"]), max_size=2),
    "logging.level": st.sampled_from(["info", "debug"]),
    "logging.backups": st.integers(1, 3),
}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_law_undoing_restores_what_was_on_probation_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    state = tmp_path_factory.mktemp("law")
    state.chmod(0o700)
    place = Place(state)
    place.write(BEFORE)

    def edit(text: str) -> tuple[str, str]:
        path = data.draw(PATHS)
        return set_value(text, path, data.draw(VALUES[path])), path

    edited, tried = edit(BEFORE)
    made, _, _ = propose(state, place.file, edited, env=place.env, window=60, now_ms=NOW)
    touched = set()
    for _ in range(data.draw(st.integers(0, 3))):
        text, path = edit(place.file.read_text())
        place.write(text)
        touched.add(path)
    between = loads(place.file.read_text())
    undo(made, env=place.env)
    after = loads(place.file.read_text())

    def at(tree: object, path: str) -> object:
        for step in path.split("."):
            tree = tree.get(step) if isinstance(tree, dict) else None
        return tree

    for path in VALUES:
        if path != tried:
            assert at(after, path) == at(between, path), path
        elif path not in touched:
            assert at(after, path) == at(loads(BEFORE), path)
