"""The job specs as data: parsed by python-hcl2, with literals, expressions and heredocs told apart.

Checks are pure functions from a :class:`Spec` to a list of problems, so that a test can also show them a spec that is
wrong (:func:`mutated`) and see that they say so.
"""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import hcl2

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy/nomad"
EXAMPLE = DEPLOY / "variables.example.hcl"
README = DEPLOY / "README.md"

Body = dict[str, Any]


class Expression(str):
    """An HCL expression that is not a literal, such as `var.api_image`."""

    __slots__ = ()


class Heredoc(str):
    """The text of a heredoc: indentation removed, `%%{` and `$${` turned into what Nomad writes to the file."""

    __slots__ = ()


def plain(value: Any) -> Any:
    """Strip python-hcl2's markers: quotes of strings and labels, `${}` of bare expressions, `__is_block__`."""
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items() if not str(key).startswith("__")}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if not isinstance(value, str):
        return value
    if value.startswith("${") and value.endswith("}"):
        return Expression(value[2:-1])
    if not (len(value) >= 2 and value[0] == value[-1] == '"'):
        return value
    inner = value[1:-1]
    if found := re.fullmatch(r"<<(-?)(\w+)\n(.*?)\n?[ \t]*\2", inner, re.S):
        text = textwrap.dedent(found[3]) if found[1] else found[3]
        return Heredoc(text.replace("%%{", "%{").replace("$${", "${") + "\n")
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m[1], m[1]), inner)


@dataclass(frozen=True)
class Task:
    """One task and where it stands."""

    name: str
    group: str
    body: Body

    @property
    def config(self) -> Body:
        """The docker driver's settings."""
        return one(self.body, "config")

    @property
    def hook(self) -> str:
        """`prestart sidecar`, `poststart`, ..., or `main`."""
        if not self.body.get("lifecycle"):
            return "main"
        lifecycle = one(self.body, "lifecycle")
        return f"{lifecycle['hook']} sidecar" if lifecycle["sidecar"] else str(lifecycle["hook"])

    @property
    def templates(self) -> dict[str, Body]:
        """Templates by destination."""
        return {body["destination"]: body for body in self.body.get("template", [])}


@dataclass(frozen=True)
class Spec:
    """One job file."""

    name: str
    text: str
    tree: Body

    @property
    def variables(self) -> dict[str, Body]:
        """Declared variables by name."""
        return {name: body for block in self.tree.get("variable", []) for name, body in block.items()}

    @property
    def locals(self) -> Body:
        """The one `locals` block, empty if there is none."""
        blocks: list[Body] = self.tree.get("locals", [{}])
        return {name: value for block in blocks for name, value in block.items()}

    @property
    def job(self) -> Body:
        """Body of the job block."""
        ((name, body),) = self.tree["job"][0].items()
        assert name == self.name
        return cast("Body", body)

    @property
    def group(self) -> Body:
        """Body of the one group."""
        return self.group_item[1]

    @property
    def group_item(self) -> tuple[str, Body]:
        """Name and body of the one group."""
        ((name, body),) = (item for block in self.job["group"] for item in block.items())
        return name, body

    @property
    def tasks(self) -> dict[str, Task]:
        """Tasks by name."""
        group, body = self.group_item
        return {name: Task(name, group, task) for block in body["task"] for name, task in block.items()}

    def value(self, value: Any) -> Any:
        """A literal as it is, `var.x` as its default; anything else stays an expression."""
        if isinstance(value, Expression) and (found := re.fullmatch(r"var\.(\w+)", value)):
            return self.variables[found[1]]["default"]
        return value

    def environment(self, task: Task) -> dict[str, Any]:
        """Name to literal or expression, of a plain block or of `merge(...)` over objects and locals."""
        env = task.body.get("env", {})
        if isinstance(env, list):
            (env,) = env
        if isinstance(env, dict):
            return env
        found: dict[str, Any] = {}
        for part in merged_parts(env):
            if part.startswith("local."):
                found |= self.locals[part.removeprefix("local.")]
            elif part.startswith("{"):
                found |= items_of(part)
        return found


def one(body: Body, block: str) -> Body:
    """The body of a block that stands exactly once."""
    (found,) = body[block]
    return cast("Body", found)


def labelled(body: Body, block: str) -> dict[str, Body]:
    """Blocks with one label, by label."""
    return {label: inner for found in body.get(block, []) for label, inner in found.items()}


# ------------------------------------------------------------------------------------------------ expressions


def split_top(text: str) -> Iterator[str]:
    """Split at commas outside of brackets and strings."""
    depth, start, at = 0, 0, 0
    while at < len(text):
        char = text[at]
        if char == '"':
            at += 1
            while text[at] != '"':
                at += 2 if text[at] == "\\" else 1
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            yield text[start:at].strip()
            start = at + 1
        at += 1
    if text[start:].strip():
        yield text[start:].strip()


def merged_parts(expression: str) -> list[str]:
    """Arguments of `merge(...)`."""
    found = re.fullmatch(r"merge\((.*)\)", expression, re.S)
    assert found, f"not a merge: {expression[:80]}"
    return list(split_top(found[1]))


def items_of(part: str) -> dict[str, Any]:
    """`{A = "x", B = var.b}` as a dict; a `for` over an object literal gives that object's items."""
    inner = part.strip()[1:-1].strip()
    if found := re.match(r"for \w+, \w+ in (\{.*?\}) :", inner, re.S):
        return items_of(found[1])
    pairs = (item.split("=", 1) for item in split_top(inner))
    return {name.strip(): literal(value.strip()) for name, value in pairs}


def literal(value: str) -> Any:
    """A quoted string as its text, anything else as an expression."""
    return plain(value) if value.startswith('"') and value.endswith('"') else Expression(value)


# ------------------------------------------------------------------------------------------------ files


def parse(name: str, text: str) -> Spec:
    """A spec from its text."""
    return Spec(name, text, plain(hcl2.loads(text)))


@functools.cache
def spec(name: str) -> Spec:
    """The spec of a job as it is in the repository."""
    return parse(name, (DEPLOY / f"{name}.nomad.hcl").read_text())


def mutated(name: str, old: str, new: str, times: int = 1) -> Spec:
    """The spec with one seeded mistake; the text that it replaces must be there so many times."""
    text = spec(name).text
    assert text.count(old) == times, f"{old!r} stands {text.count(old)} times in {name}"
    return parse(name, text.replace(old, new))


@functools.cache
def example() -> dict[str, Any]:
    """variables.example.hcl."""
    return cast("dict[str, Any]", plain(hcl2.loads(EXAMPLE.read_text())))


JOBS = sorted(path.name.removesuffix(".nomad.hcl") for path in DEPLOY.glob("*.nomad.hcl"))
SERVICES = [name for name in JOBS if spec(name).job["type"] == "service"]
