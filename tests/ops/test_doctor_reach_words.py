"""What the doctor makes of the gateway's own words."""

from openclaw_gateway.ops.doctor_reach import _certificate, _failing, _tailscale, _tunnels


def test_s177_tailscale_and_tunnels_that_do_not_stand_are_told_with_what_mends_them() -> None:
    assert _tailscale({"mode": "off", "state": "off"}) == []
    (lost,) = _tailscale({"mode": "serve", "state": "needs-login", "reason": "logged out", "fix": "tailscale up"})
    assert (lost.state, lost.text, lost.fix) == ("warn", "serve: needs-login: logged out", "tailscale up")
    (well,) = _tailscale({"mode": "serve", "state": "serving", "url": "https://gw.example/"})
    assert well.state == "ok"
    rows = [
        {"name": "a", "target": "me@far", "state": "up"},
        {"name": "b", "target": "me@far", "state": "blocked", "message": "port taken", "fix": "ss -ltn"},
    ]
    up, blocked = _tunnels({"tunnels": rows})
    assert (up.state, up.text) == ("ok", "up: a")
    assert (blocked.state, blocked.text, blocked.fix) == ("warn", "b to me@far is blocked: port taken", "ss -ltn")


def test_a_certificate_that_ends_soon_is_looked_at_one_that_ended_is_mended() -> None:
    assert _certificate(None) == []
    states = {"expiring": "warn", "expired": "fail", "fallback": "fail", "kept": "fail"}
    for state, verdict in states.items():
        (row,) = _certificate({"state": state, "trouble": "why", "fix": "do"})
        assert (row.state, row.fix) == (verdict, "do")


def test_a_body_that_is_no_readiness_names_no_part() -> None:
    assert _failing(b'{"failing":["tls","store"]}') == "tls, store"
    said = _failing(b'{"failing":["listener:nodes"],"parts":{"listener:nodes":"10.20.0.1 is no address of this host"}}')
    assert said == "listener:nodes (10.20.0.1 is no address of this host)"
    for odd in (b"", b"[]", b"null", b'{"failing":3}'):
        assert _failing(odd) == "no part is named"
