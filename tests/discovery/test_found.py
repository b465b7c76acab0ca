"""Merging what was found, and the verdicts: laws over any answers, and the attacks on them (V39, DISC-1)."""

from __future__ import annotations

import time
import unicodedata
from functools import cache
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openclaw_gateway.discovery.beacon import sign_beacon
from openclaw_gateway.discovery.found import (
    MAX_ADDRESSES,
    MAX_INSTANCES,
    Change,
    FoundGateway,
    Known,
    Reach,
    Sighting,
    Table,
    read_sighting,
)
from openclaw_gateway.discovery.records import (
    OPENCLAW_TYPE,
    SEED_TYPE,
    SERVICE_TYPES,
    Announcement,
    encode_txt,
    instance_name,
    stable_id,
    txt_of,
)
from openclaw_gateway.pairing.identity import GatewayIdentity, load_gateway_identity

NOW = 1_800_000_000.0
PIN, OTHER_PIN = "ab" * 32, "cd" * 32


@cache
def identity(number: int) -> GatewayIdentity:
    return load_gateway_identity(None)


def announced(
    who: GatewayIdentity, service_type: str, *, host: str = "", domain: str = "local.", address: str = "192.168.1.100",
    pin: str | None = None, signed: bool = True, at: float = NOW, port: int = 18789,
) -> Sighting:  # fmt: skip
    name = instance_name(who.device_id)
    beacon = None
    if signed:
        beacon = sign_beacon(who.sign, who.public_key, instance=name, port=port, tls_sha256=pin, signed_at=int(at))
    said = Announcement(
        device_id=who.device_id, instance=name, host="openclaw", port=port, version="3.0.0",
        capabilities=("gateway", "agent", "channels"), auth="token", tls=pin is not None, tls_sha256=pin, beacon=beacon,
    )  # fmt: skip
    host = host or f"openclaw-{stable_id(who.device_id)}.local."
    made = read_sighting(
        service_type=service_type, instance=name, domain=domain, host=host,
        port=port, addresses=[address], txt=encode_txt(txt_of(service_type, said, "minimal")), now=NOW,
    )  # fmt: skip
    assert made is not None
    return made


def both(who: GatewayIdentity, **options: object) -> list[Sighting]:
    return [announced(who, kind, **options) for kind in SERVICE_TYPES]  # type: ignore[arg-type]


def only(table: Table) -> FoundGateway:
    (row,) = table.gateways
    return row


# --- laws

_names = st.sampled_from(["a", "b", "c"])
_any_sighting = st.builds(
    read_sighting,
    service_type=st.sampled_from(SERVICE_TYPES),
    instance=_names | st.text(min_size=1, max_size=80),
    domain=st.sampled_from(["local.", "openclaw.internal."]),
    host=st.sampled_from(["x.local.", "y.local."]) | st.text(min_size=1, max_size=60),
    port=st.sampled_from([1, 18789]),
    addresses=st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fe80::1%eth0", "::1", "x"]), max_size=4),
    txt=st.binary(max_size=400) | st.sampled_from([b"\x0fid=0123456789ab", b"\x11role=gateway\x1b[2Jx", b"\0"]),
    now=st.just(NOW),
).filter(lambda made: made is not None)


def applied(changes: list[Change], rows: dict[str, FoundGateway]) -> None:
    for change in changes:
        if change.kind == "removed":
            assert rows.pop(change.gateway.key) is not None
        else:
            assert (change.gateway.key in rows) == (change.kind == "changed")
            rows[change.gateway.key] = change.gateway


@given(st.lists(_any_sighting, max_size=8), st.randoms())
def test_disc1_the_rows_do_not_depend_on_the_order_of_the_answers(answers: list[Sighting], chance: object) -> None:
    latest = {one.key: one for one in answers}
    one_way, other_way = Table(), Table()
    one_way.update(latest.values())
    shuffled = list(latest.values())
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    for answer in shuffled:
        other_way.update([answer])
    assert one_way.gateways == other_way.gateways


@given(st.lists(st.tuples(st.booleans(), _any_sighting), max_size=12))
def test_disc1_the_changes_that_were_told_give_the_rows(steps: list[tuple[bool, Sighting]]) -> None:
    table = Table(limit=5)
    rows: dict[str, FoundGateway] = {}
    for appears, sighting in steps:
        applied(table.update([sighting] if appears else (), () if appears else [sighting.key]), rows)
        assert len(table) <= 5
        for address in sighting.addresses:
            applied(table.reached(Reach(ok=appears, address=address), sighting.port), rows)
    assert sorted(rows.values(), key=lambda row: row.key) == sorted(table.gateways, key=lambda row: row.key)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text(max_size=300), st.text(max_size=300), st.text(max_size=300), st.integers(-1, 70000),
    st.lists(st.text(max_size=50) | st.ip_addresses().map(str), max_size=100), st.binary(max_size=9000),
)  # fmt: skip
def test_v39_any_answer_gives_clean_bounded_text_or_none(
    instance: str, domain: str, host: str, port: int, addresses: list[str], txt: bytes
) -> None:
    for kind in (*SERVICE_TYPES, "_other._tcp"):
        made = read_sighting(
            service_type=kind, instance=instance, domain=domain, host=host, port=port, addresses=addresses, txt=txt,
            now=NOW,
        )  # fmt: skip
        if made is None:
            continue
        table = Table()
        table.update([made])
        row = only(table)
        texts = [row.name, row.instance, row.host, *row.addresses, *row.domains, *row.txt, *row.txt.values()]
        assert all(unicodedata.category(char) not in {"Cc", "Cf", "Cs"} for text in texts for char in text)
        assert sum(len(text) for text in texts) < 10_000
        assert len(row.addresses) <= MAX_ADDRESSES


# --- one row per gateway


def test_c3_both_types_both_families_and_both_domains_are_one_row() -> None:
    gateway = identity(1)
    table = Table()
    far: dict[str, Any] = {"domain": "openclaw.internal.", "host": "box.openclaw.internal.", "address": "100.64.0.9"}
    table.update([*both(gateway), announced(gateway, OPENCLAW_TYPE, **far)])
    table.update([announced(gateway, SEED_TYPE, address="fe80::1%eth0")])
    row = only(table)
    assert row.service_types == (OPENCLAW_TYPE, SEED_TYPE)
    assert row.domains == ("local.", "openclaw.internal.")
    assert row.addresses == ("100.64.0.9", "192.168.1.100", "fe80::1%eth0")
    assert (row.advert.version, row.advert.capabilities) == ("3.0.0", ("gateway", "agent", "channels"))
    assert (row.signature, row.trust) == ("signed", "unknown")


def test_c3_a_seed_record_without_an_id_joins_the_openclaw_record_of_the_same_host_and_port() -> None:
    def plain(kind: str, txt: dict[str, str], instance: str) -> Sighting:
        made = read_sighting(
            service_type=kind, instance=instance, domain="local.", host="OpenClaw.local.", port=18789,
            addresses=["192.168.1.100"], txt=encode_txt(txt), now=NOW,
        )  # fmt: skip
        assert made is not None
        return made

    table = Table()
    table.update([plain(OPENCLAW_TYPE, {"role": "gateway"}, "x"), plain(SEED_TYPE, {"version": "3.0.0"}, "y")])
    row = only(table)
    assert (row.host, row.advert.role, row.advert.version) == ("openclaw.local", "gateway", "3.0.0")
    assert row.signature == "unsigned"


def test_disc2_two_gateways_of_one_host_stay_two_rows() -> None:
    table = Table()
    table.update([*both(identity(1), host="h.local.", port=18789), *both(identity(2), host="h.local.", port=18790)])
    assert len(table.gateways) == 2


def test_goodbyes_take_the_row_away_with_its_last_type() -> None:
    table = Table()
    seed, openclaw = both(identity(1))
    table.update([seed, openclaw])
    assert [change.kind for change in table.update(lost=[seed.key])] == ["changed"]
    assert [change.kind for change in table.update(lost=[openclaw.key])] == ["removed"]
    assert table.gateways == ()


# --- trust


def test_v39_only_a_proof_makes_a_gateway_paired() -> None:
    gateway = identity(1)
    known = Known(device_id=gateway.device_id)
    for sightings, trust in (
        (both(gateway), "paired"),
        (both(gateway, signed=False), "unknown"),
        (both(gateway, at=NOW - 90_000), "unknown"),  # a statement repeated a day later
        (both(identity(2)), "unknown"),
    ):
        table = Table([known])
        table.update(sightings)
        assert only(table).trust == trust


def test_v39_a_replayed_signature_with_another_port_does_not_hold() -> None:
    gateway = identity(1)
    real = announced(gateway, OPENCLAW_TYPE)
    copied = read_sighting(
        service_type=OPENCLAW_TYPE, instance=real.instance, domain="local.", host="evil.local.", port=666,
        addresses=["192.168.1.66"], txt=encode_txt(real.txt), now=NOW,
    )  # fmt: skip
    assert copied is not None
    table = Table([Known(device_id=gateway.device_id)])
    table.update([copied])
    assert (only(table).signature, only(table).trust) == ("forged", "different-key")


def test_v39_a_key_that_speaks_under_anothers_id_is_a_forger() -> None:
    honest, forger = identity(1), identity(2)
    real = announced(honest, OPENCLAW_TYPE)
    beacon = sign_beacon(
        forger.sign, forger.public_key, instance=real.instance, port=real.port, tls_sha256=None, signed_at=int(NOW)
    )
    made = read_sighting(
        service_type=OPENCLAW_TYPE, instance=real.instance, domain="local.", host="evil.local.", port=real.port,
        addresses=["192.168.1.66"], txt=encode_txt({**real.txt, **beacon.to_txt()}), now=NOW,
    )  # fmt: skip
    assert made is not None
    assert (made.signature, made.signer) == ("forged", None)


def test_v39_taking_the_word_tls_out_of_a_signed_announcement_leaves_it_tls() -> None:
    real = announced(identity(1), OPENCLAW_TYPE, pin=PIN)
    txt = {key: value for key, value in real.txt.items() if key != "gatewayTls"}
    made = read_sighting(
        service_type=OPENCLAW_TYPE, instance=real.instance, domain="local.", host=real.host, port=real.port,
        addresses=real.addresses, txt=encode_txt(txt), now=NOW,
    )  # fmt: skip
    assert made is not None
    table = Table()
    table.update([made])
    assert only(table).signature == "signed"
    assert only(table).url.startswith("wss://")


def test_v39_an_unsigned_answer_adds_nothing_to_a_signed_row() -> None:
    gateway = identity(1)
    real = announced(gateway, OPENCLAW_TYPE)
    forged = read_sighting(
        service_type=SEED_TYPE, instance=real.instance, domain="local.", host=real.host, port=real.port,
        addresses=["192.168.1.66"], txt=encode_txt({"version": "6.6.6"}), now=NOW,
    )  # fmt: skip
    assert forged is not None
    table = Table([Known(device_id=gateway.device_id)])
    table.update([real, forged])
    paired = next(row for row in table.gateways if row.trust == "paired")
    assert paired.addresses == ("192.168.1.100",)
    assert paired.advert.version is None
    assert len(table.gateways) == 2


def test_v39_an_announced_certificate_never_overrides_a_kept_one() -> None:
    gateway = identity(1)
    table = Table([Known(device_id=gateway.device_id, tls_sha256=OTHER_PIN)])
    table.update(both(gateway, pin=PIN))
    assert only(table).trust == "different-key"


def test_v39_the_certificate_that_the_probe_saw_decides_about_an_unsigned_gateway() -> None:
    known = Known(tls_sha256=PIN, url="wss://192.168.1.100:18789")
    for seen, trust in ((PIN, "paired"), (OTHER_PIN, "different-key"), (None, "unknown")):
        table = Table([known])
        table.update(both(identity(1), pin=PIN, signed=False))
        table.reached(Reach(ok=True, address="192.168.1.100", fingerprint=seen), 18789)
        assert only(table).trust == trust


def test_v39_a_stranger_at_the_place_of_a_known_gateway_is_shown_as_such() -> None:
    table = Table([Known(device_id=identity(1).device_id, url="ws://192.168.1.100:18789")])
    table.update(both(identity(2)))
    assert only(table).trust == "different-key"


def test_v39_no_loopback_or_multicast_address_is_taken_over() -> None:
    made = read_sighting(
        service_type=SEED_TYPE, instance="x", domain="local.", host="x.local.", port=1, txt=b"\0", now=NOW,
        addresses=["127.0.0.1", "::1", "224.0.0.251", "0.0.0.0", "::ffff:127.0.0.1", "255.255.255.255", "10.0.0.7"],
    )  # fmt: skip
    assert made is not None
    assert made.addresses == ("10.0.0.7",)


# --- floods


def test_disc1_ten_thousand_instances_leave_the_table_bounded_and_quick() -> None:
    def stranger(number: int) -> Sighting:
        made = read_sighting(
            service_type=SEED_TYPE, instance=f"x{number}", domain="local.", host=f"h{number}.local.", port=18789,
            addresses=[], txt=b"\0", now=NOW,
        )  # fmt: skip
        assert made is not None
        return made

    gateway = identity(1)
    table = Table([Known(device_id=gateway.device_id)])
    began = time.monotonic()
    for start in range(0, 10_000, 500):
        table.update([stranger(number) for number in range(start, start + 500)])
    table.update(both(gateway))
    assert time.monotonic() - began < 5
    assert len(table) == MAX_INSTANCES
    assert table.dropped == 10_000 - MAX_INSTANCES + 2
    assert [row.trust for row in table.gateways[:2]] == ["paired", "unknown"]


def test_v39_a_known_signature_beside_another_certificate_is_no_proof() -> None:
    """The signature covers the certificate: who repeats the statement elsewhere cannot show it."""
    me = identity(1)
    table = Table([Known(device_id=me.device_id, source="own")])
    table.update(both(me, pin=PIN))
    table.reached(Reach(ok=True, address="192.168.1.100", fingerprint=OTHER_PIN), 18789)
    assert only(table).trust == "different-key"
    table.reached(Reach(ok=True, address="192.168.1.100", fingerprint=PIN), 18789)
    assert only(table).trust == "paired"


def test_v39_a_repeated_statement_with_a_lower_address_does_not_take_the_place_of_the_real_one() -> None:
    me = identity(1)
    table = Table([Known(device_id=me.device_id, source="own")])
    table.update(both(me, pin=PIN))
    table.update([announced(me, OPENCLAW_TYPE, pin=PIN, address="10.0.0.1", domain="stranger.internal.")])
    table.reached(Reach(ok=True, address="10.0.0.1", fingerprint=OTHER_PIN), 18789)
    table.reached(Reach(ok=True, address="192.168.1.100", fingerprint=PIN), 18789)
    row = only(table)
    assert (row.trust, row.address) == ("paired", "192.168.1.100")
