"""The files around the code agree with it and with one another."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

import opscore
from opscore.settings import Settings, environment_name

ROOT = Path(__file__).parents[2]
COMPOSE_FILES = ("docker-compose.yml", "docker-compose.real-agentkit.yml")
LOCK_FILES = ("requirements.txt", "requirements-dev.txt", ".ci/uv.txt")
NOT_OURS = {".git", ".venv", "__pycache__", "build", "dist", "htmlcov", ".hypothesis"}
REGISTRY = re.compile(r"py[p]i\.org|python[h]osted|npm[j]s\.(org|com)|deb\.deb[i]an\.org")
TASK_ITEMS = (
    [f"1.{n}" for n in range(1, 6)]
    + [f"2.{n}" for n in range(1, 15)]
    + [f"3.{n}" for n in range(1, 6)]
    + [f"4.{n}" for n in range(1, 6)]
    + [f"5.{n}" for n in range(1, 7)]
    + [f"B{n}" for n in range(1, 7)]
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(read(name))
    return document


def settings_names() -> set[str]:
    return {environment_name(field) for field in Settings.model_fields}


def example_variables() -> dict[str, str]:
    """Every variable of .env.example with its value, also those that are commented out."""
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", read(".env.example"), re.MULTILINE))


def compose_variables(name: str) -> set[str]:
    return set(re.findall(r"\$\{([A-Z0-9_]+)", read(name)))


def own_files() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if path.is_file() and not any(
            part in NOT_OURS or part.endswith("_cache") for part in parts
        ):
            yield path


def packages(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", read(name), re.MULTILINE))


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))


# --- settings -------------------------------------------------------------------------------


def test_every_setting_is_in_the_example() -> None:
    assert settings_names() - example_variables().keys() == set()


def test_the_example_names_nothing_unknown() -> None:
    used_by_compose = set().union(*(compose_variables(name) for name in COMPOSE_FILES))
    assert example_variables().keys() - settings_names() - used_by_compose == set()


def test_the_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*settings_names(), "LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    shown = {name: value for name, value in example_variables().items() if value}
    env_file = tmp_path / "env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in shown.items()))
    as_shown, by_default = Settings(_env_file=env_file), Settings(_env_file=None)
    changed = {
        field
        for field in Settings.model_fields
        if getattr(as_shown, field) != getattr(by_default, field)
    }
    # Its default depends on the mode; the policy that comes of it is the same.
    assert changed <= {"start_timeout"}
    assert as_shown.policy == by_default.policy


def test_a_copy_of_the_example_holds_no_secret() -> None:
    values = dotenv_values(ROOT / ".env.example")
    assert values
    assert not any(values.values())


# --- containers -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_variables_are_documented(name: str) -> None:
    assert compose_variables(name) - example_variables().keys() == set()


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_secrets_are_required_variables(name: str) -> None:
    services = load(name)["services"]
    secrets = [
        value
        for service in services.values()
        for variable, value in service.get("environment", {}).items()
        if variable.endswith(("_KEY", "_SECRET"))
    ]
    assert secrets
    assert all(re.fullmatch(r"\$\{[A-Z_]+:\?.+\}", value) for value in secrets)


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_dependencies_exist(name: str) -> None:
    services = load(name)["services"]
    for service in services.values():
        assert service.get("depends_on", {}).keys() <= services.keys()


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_root_file_systems_of_our_own_image_are_read_only(name: str) -> None:
    ours = {key: each for key, each in load(name)["services"].items() if "build" in each}
    assert {key for key, service in ours.items() if service.get("read_only")} == set(ours)


def test_compose_tests_run_only_when_asked_for() -> None:
    assert load("docker-compose.yml")["services"]["tests"]["profiles"] == ["tests"]


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_services_have_limits(name: str) -> None:
    for service in load(name)["services"].values():
        assert {"cpus", "mem_limit", "pids_limit"} <= service.keys()
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_gives_the_service_all_of_the_env_file_and_a_volume(name: str) -> None:
    document = load(name)
    service = document["services"]["opscore"]
    assert service["env_file"] == [".env"]
    assert service["volumes"] == ["data:/data"]
    assert "data" in document["volumes"]
    url = service["environment"]["OPSCORE_STORAGE_URL"]
    assert url == "${OPSCORE_STORAGE_URL:-sqlite:////data/opscore.db}"


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_needs_no_new_version(name: str) -> None:
    # An early version 2 refuses to extend a service that depends on others.
    assert [key for key, each in load(name)["services"].items() if "extends" in each] == []


def test_compose_files_differ_in_agentkit_alone() -> None:
    simulated, real = (load(name)["services"] for name in COMPOSE_FILES)
    assert simulated.keys() - real.keys() == {"tests"}
    for name in real.keys() - {"agentkit"}:
        environment = simulated[name]["environment"] | {"AGENTKIT_API_URL": "http://agentkit:8000"}
        assert simulated[name] | {"environment": environment} == real[name]


def dockerfile_instructions() -> list[tuple[str, str]]:
    """The instructions of the last stage, continuation lines joined."""
    stage = read("Dockerfile").replace("\\\n", " ").rpartition("\nFROM ")[2]
    lines = [line.partition(" ") for line in stage.splitlines()[1:] if line.strip()]
    return [(word, rest.strip()) for word, _, rest in lines]


@pytest.mark.parametrize("instruction", ["ENTRYPOINT", "CMD"])
def test_the_image_starts_without_a_shell(instruction: str) -> None:
    assert dict(dockerfile_instructions())[instruction].startswith("[")


def test_the_image_is_not_root_and_checks_its_health() -> None:
    instructions = dict(dockerfile_instructions())
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instructions["USER"])
    assert "/health/live" in instructions["HEALTHCHECK"]
    assert instructions["STOPSIGNAL"] == "SIGTERM"


def test_base_images_are_pinned_by_digest() -> None:
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", read("Dockerfile"), re.MULTILINE)
    own = {stage for _, stage in stages}
    images = {image for image, _ in stages} - own
    assert len(images) == 1
    assert all(re.fullmatch(r"python:[\d.]+-slim-\w+@sha256:[0-9a-f]{64}", one) for one in images)


def test_the_image_installs_by_hash() -> None:
    assert read("Dockerfile").count("pip install") == read("Dockerfile").count("--require-hashes")


# --- packaging and automation ---------------------------------------------------------------


@pytest.mark.parametrize("name", LOCK_FILES)
def test_every_requirement_has_a_hash(name: str) -> None:
    blocks = re.split(r"\n(?=\S)", read(name).strip())
    assert blocks
    assert [block for block in blocks if "--hash=sha256:" not in block] == []


def test_development_uses_the_versions_that_run() -> None:
    assert packages("requirements.txt").items() <= packages("requirements-dev.txt").items()


def test_no_file_names_a_package_registry() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in own_files()
        if REGISTRY.search(path.read_bytes().decode("utf-8", errors="replace"))
    ]
    assert found == []


def test_package_and_project_have_one_version() -> None:
    assert tomllib.loads(read("pyproject.toml"))["project"]["version"] == opscore.__version__


def test_the_workflow_runs_targets_on_every_supported_python() -> None:
    jobs = load(".github/workflows/ci.yml")["jobs"]
    commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    called = {target for text in commands for target in re.findall(r"\bmake ([a-z]+)", text)}
    assert {"check", "test"} <= called <= make_targets()
    classifiers = tomllib.loads(read("pyproject.toml"))["project"]["classifiers"]
    versions = [word for word in (text.split(" :: ")[-1] for text in classifiers) if "3." in word]
    assert jobs["test"]["strategy"]["matrix"]["python"] == versions


def test_actions_are_pinned_by_commit() -> None:
    used = re.findall(r"uses: (.+)$", read(".github/workflows/ci.yml"), re.MULTILINE)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_jobs_may_read_the_code_and_nothing_else() -> None:
    workflow = load(".github/workflows/ci.yml")
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        checkout = next(step for step in job["steps"] if "actions/checkout" in step.get("uses", ""))
        assert checkout["with"]["persist-credentials"] is False


def test_make_installs_uv_by_hash() -> None:
    installs = re.findall(r"\$\(PIP\) install (.+)$", read("Makefile"), re.MULTILINE)
    assert installs
    for options in installs:
        assert "--require-hashes" in options or "--no-deps" in options


@pytest.mark.parametrize("name", ["README.md", ".ci/run"])
def test_documented_targets_exist(name: str) -> None:
    called = set(re.findall(r"(?:^|`|    )make ([a-z]+)", read(name), re.MULTILINE))
    assert called
    assert called <= make_targets()


def test_the_checklist_is_whole() -> None:
    rows = re.findall(r"^\| ([0-9B][0-9.]*) \| .+ \| (.+) \| .*\|$", read("TASK.md"), re.MULTILINE)
    assert [number for number, _ in rows] == TASK_ITEMS
    assert {status for _, status in rows} <= {"done", "in progress", "not begun"}


def test_page_of_errors_is_in_the_wheel_and_in_the_image() -> None:
    wheel = tomllib.loads(read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["docs/reference/errors.md"] == "opscore/api/errors.md"
    assert "COPY docs/reference/errors.md /tmp/opscore/api/errors.md" in read("Dockerfile")
    assert "!docs/reference/errors.md" in read(".dockerignore").splitlines()
