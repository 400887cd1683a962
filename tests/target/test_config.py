from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.target import config, pairs


@pytest.fixture(autouse=True)
def no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.TargetConfig.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_layers_last_one_that_speaks_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "target.toml"
    file.write_text('NOMAD_ADDR = "http://file:4646"\nnomad_namespace = "file"\n')
    monkeypatch.setenv("NOMAD_ADDR", "http://environment:4646")
    monkeypatch.setenv("NOMAD_REGION", "environment")

    found = config.load(file, {"nomad_namespace": "option", "gvfx_datacenter": None})

    assert found.nomad_region == "environment"
    assert found.nomad_addr == "http://file:4646"
    assert found.nomad_namespace == "option"
    assert found.gvfx_datacenter == "dc1"


def test_every_problem_at_once_and_no_received_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "target.toml"
    file.write_text('nomad_adr = "http://x"\n')
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "https://user:hunter2@consul:8501")
    monkeypatch.setenv("NOMAD_CACERT", "/nowhere/ca.pem")
    monkeypatch.setenv("GVFX_WORKER_PATTERN", "(")

    with pytest.raises(config.ConfigError) as error:
        config.load(file)

    text = str(error.value)
    for name in ("NOMAD_ADDR", "CONSUL_HTTP_ADDR", "NOMAD_CACERT", "GVFX_WORKER_PATTERN", "nomad_adr"):
        assert name in text
    assert "hunter2" not in text
    assert len(error.value.problems) == 5


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMAD_ADDR", "http://nomad:4646")
    monkeypatch.setenv("NOMAD_TOKEN", "hunter2")
    found = config.load()
    assert "hunter2" not in repr(found)
    assert found.nomad_token is not None
    assert found.nomad_token.get_secret_value() == "hunter2"


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMAD_ADDR", "http://nomad:4646")
    monkeypatch.setenv("MARKET_GOLD_PAIRS", "")
    assert config.load().market_gold_pairs == pairs.PLAN_GOLD


def test_unreadable_and_broken_files(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("= 1")
    for path, words in ((tmp_path / "absent.toml", "cannot be read"), (broken, "not TOML")):
        with pytest.raises(config.ConfigError, match=words):
            config.load(path, {"nomad_addr": "http://nomad:4646"})


def test_pairs_by_the_application_rules() -> None:
    assert pairs.parse_csv(" BTC-USDT, ,btcusdt,XAUTUSDT,XAUT-USDT ") == ("BTC-USDT", "XAUTUSDT")
    assert pairs.supported(("A",), ("B", "a"), ()) == ("A", "B")
    assert pairs.supported(("A",), ("B",), ("C",)) == ("C",)
    assert pairs.supported((), (), ()) == pairs.DEFAULT_GOLD + pairs.DEFAULT_CRYPTO


def test_pairs_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMAD_ADDR", "http://nomad:4646")
    monkeypatch.setenv("BINGX_MARKET_DATA_PAIRS", "ETH-USDT,BTC-USDT")
    assert config.load().supported_pairs == ("ETH-USDT", "BTC-USDT")
