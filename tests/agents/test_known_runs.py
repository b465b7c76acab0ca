"""The runs that are known by their ids: what hides what, and what is kept."""

from __future__ import annotations

from openclaw_gateway.agents.known import MAX_ENDED, KnownRuns
from openclaw_gateway.agents.records import AgentFailed, RunRequest
from openclaw_gateway.agents.runstate import Ended, Run, digest_of


def run(run_id: str, session_key: str = "agent:main:main") -> Run:
    request = RunRequest(
        run_id=run_id, agent_id="main", session_key=session_key, text=f"question {run_id}", source="test",
        accepted_at_ms=1,
    )  # fmt: skip
    return Run(request)


def test_cap_the_last_runs_that_ended_are_kept() -> None:
    known = KnownRuns()
    for number in range(MAX_ENDED + 5):
        known.end(known.add(run(f"r{number}")), None, number)
    assert (len(known), known.active()) == (MAX_ENDED, [])
    assert (known.get("r4"), known.alive("r5")) == (None, None)
    assert isinstance(known.get("r5"), Ended)


def test_of_a_run_that_ended_its_end_is_known_and_not_its_question() -> None:
    known = KnownRuns()
    one = known.add(run("r"))
    one.state, one.started_at_ms = "error", 3
    known.end(one, AgentFailed("no model"), 7)
    wanted = Ended("r", "agent:main:main", "error", 7, 3, "no model", digest_of(one.request))
    assert known.get("r") == wanted


def test_a_run_that_has_not_ended_hides_one_of_its_id_that_has() -> None:
    known = KnownRuns()
    known.end(known.add(run("r")), None, 1)
    again = known.add(run("r"))
    assert (known.get("r"), known.alive("r")) == (again, again)
    known.discard("r")
    assert isinstance(known.get("r"), Ended)


def test_the_runs_of_a_session_are_listed_as_they_were_accepted() -> None:
    known = KnownRuns()
    first, other = known.add(run("1")), known.add(run("2", "agent:main:other"))
    last = run("3")
    known.restore([last])
    assert known.active() == [first, other, last]
    assert known.active("agent:main:main") == [first, last]
