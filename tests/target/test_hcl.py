from __future__ import annotations

import pytest

from fixtures.errors import Refused
from fixtures.target import hcl

SPEC = """\
job "x" {
  group "g" {
    network {
      mode = "bridge" # } not a brace
    }
    task "guard" {
      config {
        image      = "i"
        entrypoint = ["/guard", "{"]
        args       = [
          "a]",
          "b",
        ]
        ports = ["p"]
      }
      template {
        data = <<-EOT
        {{- range }} } unbalanced {
        EOT
      }
    }
    task "worker" {
      config {
        command = "run"
      }
    }
  }
}
"""


def test_block_knows_strings_comments_and_heredocs() -> None:
    start, end = hcl.block(SPEC, 'task "guard"')
    body = SPEC[start:end]
    assert body.lstrip().startswith('task "guard"')
    assert body.rstrip().endswith("}")
    assert "worker" not in body
    assert "EOT\n      }" in body


def test_replace_in_touches_one_place() -> None:
    changed = hcl.replace_in("network", r'mode = "bridge"', 'mode = "host"')(SPEC)
    assert changed == SPEC.replace('"bridge"', '"host"')


@pytest.mark.parametrize(
    ("header", "pattern"), [("network", "absent"), ("network", "o"), ("absent", "x"), ("config", "x")]
)
def test_replace_in_refuses_what_does_not_fit_once(header: str, pattern: str) -> None:
    with pytest.raises(Refused, match="exactly once"):
        hcl.replace_in(header, pattern, "")(SPEC)


def test_task_command_replaces_every_form() -> None:
    changed = hcl.task_command("guard", ["/bin/true"])(SPEC)
    start, end = hcl.block(changed, 'task "guard"')
    guard = changed[start:end]
    assert guard.count("entrypoint") == 1
    assert 'entrypoint = ["/bin/true"]' in guard
    assert "args" not in guard
    assert 'ports = ["p"]' in guard
    assert changed.count('command = "run"') == 1
    assert 'entrypoint = ["/w"]' in hcl.task_command("worker", ["/w"])(SPEC)


def test_task_command_refuses_a_task_that_is_not_there() -> None:
    with pytest.raises(Refused):
        hcl.task_command("absent", ["/bin/true"])(SPEC)


def test_an_open_bracket_is_refused() -> None:
    with pytest.raises(Refused, match="never closed"):
        hcl.block('job "x" {\n  group "g" {\n', 'group "g"')
