from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from fixtures.rehearsal import pki
from fixtures.target import config, pairs


@pytest.fixture(autouse=True)
def no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.TargetConfig.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    """A certificate and its key, a foreign key, and one with a passphrase."""
    authority = pki.Authority("tests")
    one, other = authority.issue("one"), authority.issue("other")
    locked = serialization.load_pem_private_key(one.key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    files = {"ca": authority.pem, "cert": one.cert, "key": one.key, "other": other.key, "locked": locked}
    for name, content in files.items():
        (tmp_path / f"{name}.pem").write_bytes(content)
    return tmp_path


def test_layers_last_one_that_speaks_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "target.toml"
    file.write_text('NOMAD_ADDR = "http://file:4646"\nnomad_namespace = "file"\n')
    monkeypatch.setenv("NOMAD_ADDR", "http://environment:4646")
    monkeypatch.setenv("NOMAD_REGION", "environment")

    found = config.load(file)

    assert found.nomad_region == "environment"
    assert found.nomad_addr == "http://file:4646"
    assert found.nomad_namespace == "file"
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


def test_what_is_wrong_with_a_file_is_said_without_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even in a traceback with every argument and local variable."""
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "hunter3")
    file = tmp_path / "live.toml"
    file.write_text('NOMAD_TOKEN = "hunter2"\nnomad_addr = "not an address"\n')
    with pytest.raises(config.ConfigError) as error:
        config.load(file)
    below = str(error.getrepr(funcargs=True, showlocals=True, tbfilter=lambda info: info.traceback[1:]))
    assert "not an address" in below and "nomad_token" in below and "hunter" not in below


def test_every_secret_that_is_given_is_told() -> None:
    found = config.described({"nomad_addr": "http://n:4646", "nomad_token": "hunter2", "pgpassword": ""})
    assert found.secrets == ("hunter2",)
    secret = [
        name for name, field in config.TargetConfig.model_fields.items() if "Secret" in str(field.annotation)
    ]
    assert config.described(
        {"nomad_addr": "http://n:4646", **{name: name for name in secret}}
    ).secrets == tuple(secret)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMAD_ADDR", "http://nomad:4646")
    monkeypatch.setenv("MARKET_GOLD_PAIRS", "")
    assert config.load().market_gold_pairs == pairs.PLAN_GOLD


def test_unreadable_and_broken_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMAD_ADDR", "http://nomad:4646")
    broken = tmp_path / "broken.toml"
    broken.write_text("= 1")
    for path, words in ((tmp_path / "absent.toml", "cannot be read"), (broken, "not TOML")):
        with pytest.raises(config.ConfigError, match=words):
            config.load(path)


@pytest.mark.parametrize("agent", ["NOMAD", "CONSUL"])
@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("CACERT", "/etc/hostname", "holds no PEM certificate"),
        ("CACERT", "/nowhere", "is not a readable file"),
        ("CLIENT_CERT", "cert.pem", "go together"),
        ("CLIENT_KEY", "key.pem", "go together"),
    ],
)
def test_files_of_tls_are_looked_at_before_they_are_needed(
    agent: str, setting: str, value: str, words: str, tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMAD_ADDR", "http://nomad:4646")
    monkeypatch.setenv(f"{agent}_{setting}", str(tls / value))
    with pytest.raises(config.ConfigError, match=words):
        config.load()


def test_a_key_must_be_its_certificates(tls: Path) -> None:
    given = {"nomad_addr": "http://nomad:4646", "nomad_client_cert": tls / "cert.pem"}
    config.described({**given, "nomad_client_key": tls / "key.pem", "nomad_cacert": tls / "ca.pem"})
    for wrong in ("other.pem", "locked.pem"):
        with pytest.raises(config.ConfigError, match="not the unencrypted key"):
            config.described({**given, "nomad_client_key": tls / wrong})


def test_what_a_builder_describes_no_shell_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = config.described({"nomad_addr": "http://nomad:4646"})
    for name in config.TargetConfig.model_fields:
        monkeypatch.setenv(name.upper(), "http://live:1")
    assert config.described({"nomad_addr": "http://nomad:4646"}) == before


def test_a_file_may_only_say_what_is_expected_of_it(tmp_path: Path) -> None:
    file = tmp_path / "target.toml"
    file.write_text("GVFX_HEALTH_LATENCY_SECONDS = 0.5\n")
    assert config.described({"nomad_addr": "http://n:1"}, file).gvfx_health_latency_seconds == 0.5
    file.write_text('pghost = "live"\ngvfx_health_latency_seconds = 0\n')
    with pytest.raises(config.ConfigError) as error:
        config.described({"nomad_addr": "http://n:1"}, file)
    assert len(error.value.problems) == 2
    assert "pghost describes a cluster" in str(error.value)
    assert "GVFX_HEALTH_LATENCY_SECONDS" in str(error.value)


def test_pairs_by_the_application_rules() -> None:
    assert pairs.parse_csv(" BTC-USDT, ,btcusdt,XAUTUSDT,XAUT-USDT ") == ("BTC-USDT", "XAUTUSDT")
    assert pairs.supported(("A",), ("B", "a"), ()) == ("A", "B")
    assert pairs.supported(("A",), ("B",), ("C",)) == ("C",)
    assert pairs.supported((), (), ()) == pairs.DEFAULT_GOLD + pairs.DEFAULT_CRYPTO


def test_pairs_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMAD_ADDR", "http://nomad:4646")
    monkeypatch.setenv("BINGX_MARKET_DATA_PAIRS", "ETH-USDT,BTC-USDT")
    assert config.load().supported_pairs == ("ETH-USDT", "BTC-USDT")
