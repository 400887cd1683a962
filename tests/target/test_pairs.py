"""The exchange's symbols by the contract's rule."""

from __future__ import annotations

import pytest

from fixtures.errors import Unknown
from fixtures.target import pairs
from fixtures.workloads import pairs as standin


@pytest.mark.parametrize(
    ("pair", "symbol"),
    [
        ("XAUTUSDT", "XAUT-USDT"),
        ("Gold-USDT", "XAUT-USDT"),
        ("GOLD", "XAUT-USDT"),
        ("PAXGUSDT", "PAXG-USDT"),
        ("BTC-USDT", "BTC-USDT"),
        ("BTC-USDC", "BTC-USDC"),
        ("BTCUSDT", "BTC-USDT"),
    ],
)
def test_symbols_of_the_contract(pair: str, symbol: str) -> None:
    assert pairs.symbol(pair) == symbol


@pytest.mark.parametrize("pair", ["BTCUSDC", "USDT", "", "BTC"])
def test_a_name_without_a_rule_is_unknown(pair: str) -> None:
    with pytest.raises(Unknown, match="no rule"):
        pairs.symbol(pair)


def test_every_configured_pair_has_the_symbol_that_the_stand_ins_ask_for() -> None:
    every = (*pairs.PLAN_GOLD, *pairs.PLAN_CRYPTO)
    assert [pairs.symbol(one) for one in every] == [standin.symbol(one) for one in every]


def test_a_symbol_feeds_every_pair_of_it_in_order() -> None:
    assert pairs.symbols(("Gold-USDT", "DOGE-USDT", "XAUTUSDT")) == {
        "XAUT-USDT": ("Gold-USDT", "XAUTUSDT"),
        "DOGE-USDT": ("DOGE-USDT",),
    }
