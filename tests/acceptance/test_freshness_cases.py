"""T6: every rule has its test, and what its defects change is really there."""

from __future__ import annotations

from acceptance import test_6_freshness as t6
from drills.defects import catalogue, freshness
from fixtures.history.rules import RULES
from fixtures.target import names
from fixtures.target.options import DEPLOY_DIR
from fixtures.target.pairs import PLAN_CRYPTO, PLAN_GOLD, symbols, token
from fixtures.workloads import pairs, weakness


def test_every_rule_has_one_test() -> None:
    decided = [
        mark.args[0]
        for test, function in vars(t6).items()
        if test.startswith("test_")
        for mark in getattr(function, "pytestmark", [])
        if mark.name == "rule"
    ]
    assert sorted(decided) == sorted(rule.id for rule in RULES if rule.test == "T6")


def test_every_rule_is_broken_by_two_defects_at_least() -> None:
    for rule in ("T6.1", "T6.2", "T6.3", "T6.4", "T6.5"):
        assert sum(rule in one.expected_red for one in catalogue.DEFECTS) >= 2, rule


def test_the_weaknesses_of_the_defects_exist() -> None:
    own = {"api_env": {"A": "1"}, "worker_env": {"B": "2"}, "frontend_env": {"C": "3"}}
    seen = 0
    for defect in freshness.DEFECTS:
        for job, change in defect.jobs.items():
            assert change.override is not None
            for variable, value in change.override({**own, **LISTS}).items():
                spec = (DEPLOY_DIR / f"{job}.nomad.hcl").read_text(encoding="utf-8")
                assert f'variable "{variable}"' in spec
                if isinstance(value, dict):
                    seen += 1
                    assert weakness.parse(value[weakness.ENV]).on
                    assert set(own[variable]) < set(value)
    assert seen == 13


LISTS = {"market_gold_pairs": ",".join(PLAN_GOLD), "market_crypto_pairs": ",".join(PLAN_CRYPTO)}


def test_the_workers_list_loses_its_last_pair() -> None:
    worker = catalogue.BY_ID["pair-only-in-api"].jobs[names.WORKER_JOB].override
    assert worker is not None
    assert worker(LISTS) == {"market_crypto_pairs": ",".join(PLAN_CRYPTO[:-1])}


def test_the_lost_pair_is_the_plans_and_shares_its_symbol_with_none() -> None:
    every = (*PLAN_GOLD, *PLAN_CRYPTO)
    assert every[-1] == freshness.LOST
    symbols = [pairs.symbol(pair) for pair in every]
    assert symbols.count(pairs.symbol(freshness.LOST)) == 1
    # T6.5 mutes the first that is alone: another one.
    alone = next(pair for pair, symbol in zip(every, symbols, strict=True) if symbols.count(symbol) == 1)
    assert token(alone) != token(freshness.LOST)


def test_the_mistaken_pair_is_the_one_that_is_muted() -> None:
    fed = symbols((*PLAN_GOLD, *PLAN_CRYPTO))
    assert next(of[0] for of in fed.values() if len(of) == 1) == freshness.MISTAKEN
    assert pairs.from_env().taken_for_gold([freshness.MISTAKEN]).symbols() == [
        one for one in fed if one != pairs.symbol(freshness.MISTAKEN)
    ]
