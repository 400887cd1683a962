"""Variables: declared and used, documented, the same in every spec, and all in the example file."""

import re
from collections.abc import Iterable

import pytest

from tests.deploy.spec import EXAMPLE, JOBS, Expression, Spec, example, mutated, parse, spec

# The example shows real-looking values where the default is empty and would be refused (code 10 of the guard).
SHOWN_INSTEAD_OF_EMPTY = {"ts_exit_node_primary", "ts_exit_node_fallbacks", "ts_egress_expected_ips"}


def used(one: Spec) -> set[str]:
    """Variables the spec reads outside of their own declarations. Comments do not count."""
    text = re.sub(r"(?ms)^variable \"\w+\" \{.*?^\}\n", "", one.text)
    text = re.sub(r"(?m)^\s*#.*$", "", text)
    return set(re.findall(r"\bvar\.(\w+)", text))


def mismatch(one: Spec) -> list[str]:
    """Variables that are declared and unused, or used and undeclared."""
    declared = set(one.variables)
    return sorted(
        [f"unused: {name}" for name in declared - used(one)]
        + [f"undeclared: {name}" for name in used(one) - declared]
    )


@pytest.mark.parametrize("job", JOBS)
def test_declared_is_used_and_used_is_declared(job: str) -> None:
    """A setting without effect misleads; an undeclared one does not parse."""
    assert len(used(spec(job))) > 5
    assert mismatch(spec(job)) == []


def test_a_forgotten_declaration_or_use_is_seen() -> None:
    """The check above can fail in both directions."""
    assert mismatch(mutated("gvfx-api", "static = 8787", "static = var.api_port")) == ["undeclared: api_port"]
    assert mismatch(mutated("gvfx-api", "cpu    = var.api_cpu", "cpu    = 500")) == ["unused: api_cpu"]
    commented = mutated("gvfx-api", "cpu    = var.api_cpu", "cpu    = 500\n        # cpu = var.api_cpu")
    assert mismatch(commented) == ["unused: api_cpu"]


@pytest.mark.parametrize("job", JOBS)
def test_each_has_a_type_a_description_and_a_default(job: str) -> None:
    """So that one file of values serves all jobs, and a reader knows what to write."""
    for name, body in spec(job).variables.items():
        assert {"type", "description", "default"} <= body.keys(), name
        assert body["description"].endswith("."), name


PYTHON_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "list(string)": list,
    "map(string)": dict,
}


@pytest.mark.parametrize("job", JOBS)
def test_defaults_have_the_declared_type(job: str) -> None:
    """A quoted number would be taken for a number in one place and compared as text in another."""
    for name, body in spec(job).variables.items():
        assert isinstance(body["default"], PYTHON_TYPES[body["type"]]), name
        assert not isinstance(body["default"], (bool, Expression)), name


def disagreements(specs: Iterable[Spec]) -> list[str]:
    """Variables of one name that are not the same everywhere; one file of values sets them all."""
    first: dict[str, object] = {}
    return sorted(
        {
            name
            for one in specs
            for name, body in one.variables.items()
            if first.setdefault(name, body) != body
        }
    )


def test_a_name_means_the_same_everywhere() -> None:
    """Type, description, default and validation are equal in all specs that declare it."""
    assert disagreements(spec(job) for job in JOBS) == []
    other = mutated("gvfx-worker", 'default     = "Gold-USDT,XAUTUSDT,PAXGUSDT"', 'default     = "XAUTUSDT"')
    assert disagreements([spec("gvfx-api"), other]) == ["market_gold_pairs"]


def declared_anywhere() -> dict[str, object]:
    """Every variable of every spec with its default."""
    return {name: body["default"] for job in JOBS for name, body in spec(job).variables.items()}


def test_the_example_holds_every_variable_and_no_other() -> None:
    """Nothing to look up elsewhere, nothing that no spec reads (a name mistyped there would be ignored)."""
    assert set(example()) == set(declared_anywhere())


def test_the_example_shows_the_defaults() -> None:
    """As its head says: a line may be left out. Where the default is empty and refused, a value is shown."""
    differs = {name for name, default in declared_anywhere().items() if example()[name] != default}
    assert differs == SHOWN_INSTEAD_OF_EMPTY
    assert all(declared_anywhere()[name] == "" and example()[name] for name in differs)


def test_the_example_says_what_and_for_whom() -> None:
    """Each line stands under the description of the specs and the list of jobs that read it."""
    lines = re.findall(r"(?m)^# (.*)\n(\w+) += ", EXAMPLE.read_text())
    comments = {name: comment for comment, name in lines}
    wrong = []
    for name in example():
        readers = {job.removeprefix("gvfx-") for job in JOBS if name in spec(job).variables}
        description = next(
            spec(job).variables[name]["description"] for job in JOBS if name in spec(job).variables
        )
        text, _, listed = comments[name].rpartition(" [")
        said = set(JOBS) if listed == "all]" else {f"gvfx-{one}" for one in listed[:-1].split(", ")}
        if text != description or {one.removeprefix("gvfx-") for one in said} != readers:
            wrong.append(name)
    assert wrong == []


def test_pairs_agree_with_the_plan() -> None:
    """The three lists of the plan, in the three jobs that must agree on them."""
    for job in ("gvfx-api", "gvfx-worker", "gvfx-frontend"):
        variables = spec(job).variables
        assert variables["market_gold_pairs"]["default"] == "Gold-USDT,XAUTUSDT,PAXGUSDT"
        assert (
            variables["market_crypto_pairs"]["default"]
            == "ALGO-USDT,BTC-USDT,ETH-USDT,SOL-USDT,XRP-USDT,BNB-USDT"
        )


def test_the_parser_tells_literals_from_expressions() -> None:
    """What every check here stands on."""
    one = parse("x", 'job "x" {\n  a = "var.b"\n  c = var.b\n  d = "${var.b}"\n  e = 5\n}\n')
    assert one.job == {"a": "var.b", "c": "var.b", "d": "${var.b}", "e": 5}
    assert [type(value) for value in one.job.values()] == [str, Expression, str, int]
