"""Images: always a variable, always immutable; what the specs refuse is tried on the specs' own condition."""

import re

import pytest

from tests.deploy.spec import JOBS, Expression, Spec, mutated, spec

SHA, DIGEST = "0123456789abcdef" * 2 + "01234567", "@sha256:" + "0123456789abcdef" * 4
REGISTRY = "registry.example:5000/gvfx/backend"

IMMUTABLE = [f"{REGISTRY}:{SHA}", f"backend:{SHA}", f"{REGISTRY}{DIGEST}"]
MUTABLE = [
    "",
    "backend",
    "backend:latest",
    "backend:stable",
    "backend:v1.2.3",
    f"backend:{SHA[:12]}",
    f"backend:{SHA}0",
    f"backend:{SHA.upper()}",
    f"backend:{SHA}\n",
    f"backend :{SHA}",
    f":{SHA}",
    f"backend:{SHA}-dirty",
    f"backend:latest{DIGEST[:-1]}",
    "registry.invalid/gvfx-backend:replace-with-git-sha",
]


def accepts(one: Spec, variable: str, value: str) -> bool:
    """Evaluate the variable's validation with a value."""
    (validation,) = one.variables[variable]["validation"]
    form = rf'var\.{variable} != "" && regex_replace\(var\.{variable}, "(.*)", ""\) == ""'
    found = re.fullmatch(form, validation["condition"])
    assert found, f"another kind of condition: {validation['condition']}"
    # RE2's $ is the very end of the text, Python's is also the place before a last newline.
    pattern = found[1].replace("[:space:]", r"\s").replace("$", r"\Z")
    return value != "" and re.sub(pattern, "", value) == ""


def images(one: Spec) -> set[str]:
    """The expressions that tasks run."""
    return {task.config["image"] for task in one.tasks.values()}


def problems(one: Spec) -> list[str]:
    """Images that are no variable of the right name, and such variables that accept a mutable image."""
    found = []
    for image in sorted(images(one)):
        variable = image.removeprefix("var.")
        if not isinstance(image, Expression) or not re.fullmatch(r"var\.\w+_image", image):
            found.append(f"not a variable: {image}")
        elif not one.variables[variable].get("validation"):
            found.append(f"not validated: {variable}")
        else:
            found += [
                f"{variable} refuses {value!r}" for value in IMMUTABLE if not accepts(one, variable, value)
            ]
            found += [f"{variable} accepts {value!r}" for value in MUTABLE if accepts(one, variable, value)]
    return found


@pytest.mark.parametrize("job", JOBS)
def test_every_task_runs_a_variable_immutable_image(job: str) -> None:
    """A git SHA of 40 digits or a digest; `latest`, version tags and the placeholder are refused."""
    assert images(spec(job))
    assert problems(spec(job)) == []


def test_mutable_images_are_seen() -> None:
    """A literal image, a missing validation, a pattern without its end."""
    literal = mutated("gvfx-api", "image      = var.backend_image", 'image      = "backend:latest"')
    assert problems(literal) == ["not a variable: backend:latest"]
    start = spec("gvfx-api").text.index("  validation {")
    end = spec("gvfx-api").text.index("  }\n", start) + 4
    assert problems(mutated("gvfx-api", spec("gvfx-api").text[start:end], "")) == [
        "not validated: backend_image"
    ]
    assert any(
        "accepts" in one
        for one in problems(mutated("gvfx-api", "[0-9a-f]{40}|", "[0-9a-f]{40}|[a-z]+|", times=2))
    )


@pytest.mark.parametrize("job", JOBS)
def test_the_placeholder_cannot_be_deployed(job: str) -> None:
    """A value has to be chosen: the default is refused like any mutable image."""
    for image in images(spec(job)):
        variable = image.removeprefix("var.")
        default = spec(job).variables[variable]["default"]
        assert default.startswith("registry.invalid/")
        assert not accepts(spec(job), variable, default)


@pytest.mark.parametrize("job", JOBS)
def test_an_image_that_is_there_is_not_pulled_again(job: str) -> None:
    """Immutable, so a restart does not need the registry."""
    for task in spec(job).tasks.values():
        assert task.config["force_pull"] is False, task.name
