"""Pairs, values, weaknesses, logs, times and intervals."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.workloads import convexvalues, feeds, intervals, pairs, settings, timefmt, weakness
from fixtures.workloads.jsonlog import REDACTED, Ndjson, redact
from fixtures.workloads.weakness import Weakness


@pytest.mark.parametrize(
    ("pair", "symbol"),
    [
        ("XAUTUSDT", "XAUT-USDT"),
        ("Gold-USDT", "XAUT-USDT"),
        ("GOLD", "XAUT-USDT"),
        ("PAXGUSDT", "PAXG-USDT"),
        ("BTC-USDT", "BTC-USDT"),
        ("algousdt", "ALGO-USDT"),
    ],
)
def test_symbols(pair: str, symbol: str) -> None:
    assert pairs.symbol(pair) == symbol


def test_parse_keeps_order_and_first_spelling() -> None:
    assert pairs.parse(" btc-usdt, BTCUSDT ,,ETH-USDT,eth-usdt ") == ["btc-usdt", "ETH-USDT"]


def test_defaults_and_override(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pairs.from_env().supported[:2] == ("XAUTUSDT", "PAXGUSDT")
    monkeypatch.setenv("BINGX_MARKET_DATA_PAIRS", "SOL-USDT")
    assert pairs.from_env().supported == ("SOL-USDT",)
    assert pairs.from_env().section("SOL-USDT") == "crypto"


def test_alias_resolves_to_the_supported_spelling() -> None:
    known = pairs.from_env()
    assert known.resolve("Gold-USDT") == "XAUTUSDT"
    assert known.resolve("btcusdt") == "BTC-USDT"
    assert known.resolve("DOGE-USDT") is None


def test_shared_symbol_feeds_every_pair_exact_first(known_pairs: pairs.Pairs) -> None:
    assert known_pairs.of_symbol("XAUT-USDT") == ["XAUTUSDT", "Gold-USDT"]
    assert known_pairs.without(["btcusdt"]).supported == ("Gold-USDT", "XAUTUSDT")


def test_a_pair_taken_for_gold_is_fed_by_gold(known_pairs: pairs.Pairs) -> None:
    mistaken = known_pairs.taken_for_gold(["btc-usdt"])
    assert mistaken.symbols() == ["XAUT-USDT"]
    assert mistaken.of_symbol("XAUT-USDT")[-1] == "BTC-USDT" and mistaken.of_symbol("BTC-USDT") == []
    assert mistaken.without(["XAUTUSDT"]).symbol("BTC-USDT") == "XAUT-USDT"
    assert known_pairs.symbol("BTC-USDT") == "BTC-USDT"


@given(st.integers(-(2**63), 2**63 - 1))
def test_int64_round_trip(value: int) -> None:
    assert convexvalues.decode_integer(convexvalues.encode_integer(value)) == value


@given(st.binary())
def test_bytes_round_trip(value: bytes) -> None:
    encoded = convexvalues.encode_bytes(value)
    assert convexvalues.decode_bytes(convexvalues.validate(encoded)) == value
    assert convexvalues.decode_bytes(convexvalues.to_plain(encoded)) == value


@pytest.mark.parametrize("bad", [{"$bytes": "no!"}, {"$integer": "AA=="}, {"$x": 1}, [{"a": {"$b": 1}}]])
def test_bad_values_are_refused(bad: object) -> None:
    with pytest.raises(convexvalues.ValueFormatError):
        convexvalues.validate(bad)


def test_weakness_parsing() -> None:
    found = weakness.parse("lie, mute-pair:BTCUSDT ,mute-pair:X")
    assert Weakness.LIE in found
    assert found.tokens(Weakness.MUTE_PAIR) == {"BTCUSDT", "X"}
    assert weakness.parse("").names() == []


@pytest.mark.parametrize("bad", ["nonsense", "mute-pair", "lie:x"])
def test_misspelt_weakness_stops_the_process(bad: str) -> None:
    with pytest.raises(weakness.WeaknessError, match="GVFX_STANDIN_WEAKNESS"):
        weakness.parse(bad)


def test_secrets_are_redacted_at_any_depth() -> None:
    clean = redact({"API_TOKEN": "a", "deep": {"password": "b", "pair": "c"}})
    assert clean == {"API_TOKEN": REDACTED, "deep": {"password": REDACTED, "pair": "c"}}


def test_ndjson_is_flushed_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    record = Ndjson(str(path))
    record.write("rest", peer="192.0.2.1")
    line = json.loads(path.read_text())
    record.close()
    assert (line["kind"], line["peer"]) == ("rest", "192.0.2.1")
    Ndjson("").write("rest")


@given(st.floats(0, 4e9))
def test_iso_round_trip(moment: float) -> None:
    text = timefmt.iso(moment)
    assert text.endswith("Z")
    assert len(text) == 24
    back = timefmt.unix(text)
    assert back is not None
    assert abs(back - moment) < 0.0011


def test_bad_times_are_none() -> None:
    assert timefmt.unix(None) is None
    assert timefmt.unix("yesterday") is None


@given(st.sampled_from(intervals.ALL), st.integers(10**12, 2 * 10**12))
def test_candles_tile_time(interval: str, moment: int) -> None:
    opened = intervals.open_time(interval, moment)
    assert opened <= moment < intervals.close_time(interval, opened)
    assert intervals.open_time(interval, opened) == opened
    assert intervals.close_time(interval, intervals.previous(interval, opened)) == opened


def test_evaluate_has_no_vacuous_ok() -> None:
    now = 1000.0
    assert feeds.evaluate(None, 120, now) == "unavailable"
    assert feeds.evaluate({"last_seen_at": None}, 120, now) == "unavailable"
    assert feeds.evaluate({"last_seen_at": timefmt.iso(now + 61)}, 120, now) == "unavailable"
    assert feeds.evaluate({"last_seen_at": timefmt.iso(now - 120)}, 120, now) == "ok"
    assert feeds.evaluate({"last_seen_at": timefmt.iso(now - 121)}, 120, now) == "stale"


def test_scale_shortens_live_data_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GVFX_FRESHNESS_SCALE", "0.1")
    assert feeds.thresholds()["bingx_ticker"] == 12
    assert feeds.thresholds()["bingx_funding"] == 28_800


def test_boot_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_ENV", "production")
    with pytest.raises(settings.SettingError, match="DISABLE_TEST_DATA_IN_DB"):
        settings.refuse_test_data()
    monkeypatch.setenv("DISABLE_TEST_DATA_IN_DB", "true")
    monkeypatch.setenv("E2E_RUN", "1")
    with pytest.raises(settings.SettingError, match="E2E_RUN"):
        settings.refuse_test_data()
    monkeypatch.setenv("E2E_RUN", "0")
    settings.refuse_test_data()
