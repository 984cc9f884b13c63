"""The project's own files held against each other: dependencies, lock, conda, Makefile, licence, sizes, links."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "runbook").rglob("*.py"))
SCRIPTS = [ROOT / ".ci/run", *sorted(ROOT.glob("tools/*.sh"))]
TARGETS = {
    "setup", "demo", "test", "faults", "soak", "load", "bench", "lint", "lock", "audit", "sbom", "jupyter",
    "screenshots", "clean",
}  # fmt: skip
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 300, 60

# Paths of one person's or one machine's disk; /home/ops is on the practice nodes.
MACHINE_PATH = re.compile(
    r"(?<![\w./~-])/(?:work|home/(?!ops\b)[a-z]\w*|Users/\w+|opt/wheels|root/\.(?:pyenv|cargo|local|cache))/"
)
# Package registries and proxies: where packages come from is the installing machine's own setting.
REGISTRY = re.compile(
    r"(?<![\w.-])(?:(?:test\.)?pypi|(?:goproxy|proxy|registry|index|conda|deb|security|archive|ports|files|sum)"
    r"(?:\.[a-z0-9-]+)+|repo1?\.maven)\.(?:org|com|io|net|dev|cn|apache)\b"
)


def read(path: Path) -> str:
    """The text of a file, UTF-8 whatever the locale is."""
    return path.read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    """The [project] table of pyproject.toml."""
    return tomllib.loads(read(ROOT / "pyproject.toml"))["project"]  # type: ignore[no-any-return]


def requirements() -> dict[str, Requirement]:
    """What pyproject.toml asks for, dev extra included, by normalized name."""
    table = project()
    found = [Requirement(text) for text in [*table["dependencies"], *table["optional-dependencies"]["dev"]]]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def locked() -> list[tuple[Requirement, list[str]]]:
    """Every entry of requirements.lock with its options."""
    text = re.sub(r"^\s*#.*\n?", "", read(ROOT / "requirements.lock"), flags=re.MULTILINE)
    entries = [line.split(" --") for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(Requirement(entry.strip()), [option.strip() for option in options]) for entry, *options in entries]


def files(prerequisite: Callable[[str], NoReturn]) -> Iterator[tuple[str, str]]:
    """Path and text of every text file in git, and of those that are about to be added."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        prerequisite("git and a clone")
    command = [git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in sorted({name for name in names if name and (ROOT / name).is_file()}):
        data = (ROOT / name).read_bytes()
        if b"\0" not in data:
            yield name, data.decode()


# ---- dependencies


def test_the_map_of_modules_is_whole() -> None:
    """docs/architecture.md names every module, in the row of its package; the practice cluster has its own package."""
    rows = [line for line in read(ROOT / "docs/architecture.md").splitlines() if line.startswith("| ")]
    for path in MODULES:
        package = path.parent.relative_to(ROOT / "runbook").as_posix()
        if path.stem.startswith("__") or package.startswith("sandbox"):
            continue
        place = [row.partition(f"`{package}/`")[2] for row in rows] if package != "." else rows
        assert any(f"`{path.stem}`" in row for row in place), f"{path.relative_to(ROOT)} is not in the map"


def test_every_dependency_has_a_lower_bound() -> None:
    """Each dependency is bounded from below; upper bounds are the lock's work, but for pytest (see pyproject.toml)."""
    assert {
        name: str(r.specifier) for name, r in requirements().items() if not re.fullmatch(r">=[\d.]+", str(r.specifier))
    } == {"pytest": "<9.2,>=8.3"}


def test_every_dependency_is_locked() -> None:
    """The lock has a version of every direct dependency, and one that pyproject.toml allows."""
    pins: dict[str, list[str]] = {}
    for entry, _ in locked():
        pins.setdefault(canonicalize_name(entry.name), []).append(str(entry.specifier).removeprefix("=="))
    assert sorted(set(requirements()) - set(pins)) == []
    refused = {
        name: pins[name]
        for name, requirement in requirements().items()
        if not all(requirement.specifier.contains(version, prereleases=True) for version in pins[name])
    }
    assert refused == {}


def test_every_locked_entry_is_pinned_and_hashed() -> None:
    """Each entry is one version with sha256 hashes, no URL, and the lock names no index."""
    entries = locked()
    assert len(entries) > len(requirements())
    for entry, options in entries:
        assert re.fullmatch(r"==[^*,]+", str(entry.specifier)), entry
        assert entry.url is None, entry
        assert options, f"{entry} has no hash"
        assert all(re.fullmatch(r"hash=sha256:[0-9a-f]{64}", option) for option in options), (entry, options)
    text = read(ROOT / "requirements.lock")
    assert re.findall(r"://|^\s*-(?!-hash)\S+", text, flags=re.MULTILINE) == []


def test_conda_has_the_same_packages() -> None:
    """environment.yml asks for the same names and lower bounds as pyproject.toml, and for the same Python."""
    environment = yaml.safe_load(read(ROOT / "environment.yml"))
    plain = [item for item in environment["dependencies"] if isinstance(item, str)]
    by_pip = [item for table in environment["dependencies"] if isinstance(table, dict) for item in table["pip"]]
    assert "conda-forge" in environment["channels"]
    assert "-e ." in by_pip
    found = [Requirement(item) for item in [*plain, *by_pip] if item not in {"-e .", "pip"}]
    theirs = {canonicalize_name(requirement.name): str(requirement.specifier) for requirement in found}
    assert len(theirs) == len(found), "a package is named twice"
    ours = {name: str(requirement.specifier) for name, requirement in requirements().items()}
    assert theirs == ours | {"python": project()["requires-python"]}


def test_every_import_is_a_declared_dependency() -> None:
    """What the library and the tests import from others is in pyproject.toml, not there by luck."""
    distributions = importlib.metadata.packages_distributions()
    exact = {"pydantic-core": "pydantic"}  # pydantic pins one version of it, and documents what is taken from it
    own = {"runbook", "conftest"} | {path.stem for path in (ROOT / "tests").rglob("*.py")}
    undeclared: dict[str, str] = {}
    for path in [*MODULES, *(ROOT / "tests").rglob("*.py")]:
        for name in imported(path) - set(sys.stdlib_module_names) - own:
            owners = {canonicalize_name(owner) for owner in distributions.get(name, [name])}
            if not {exact.get(owner, owner) for owner in owners} & set(requirements()):
                undeclared[name] = str(path.relative_to(ROOT))
    assert undeclared == {}


def imported(path: Path) -> set[str]:
    """Top-level names of the packages that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(read(path), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


# ---- version, licence, texts


def test_version_is_the_changelogs() -> None:
    """The newest version in CHANGELOG.md is the package's."""
    text = read(ROOT / "CHANGELOG.md")
    versions = re.findall(r"^## \[?v?(\d+\.\d+\.\d+)", text, flags=re.MULTILINE)
    assert versions[:1] == [project()["version"]]


def test_licence_is_there() -> None:
    """LICENSE is the Apache License 2.0 as pyproject.toml says, whole."""
    text = read(ROOT / "LICENSE")
    assert project()["license"] == "Apache-2.0"
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text)
    assert "END OF TERMS AND CONDITIONS" in text


def test_no_file_names_a_machine_or_a_registry(prerequisite: Callable[[str], NoReturn]) -> None:
    """No file in git holds a path of one machine, or the address of a package registry or proxy."""
    found = [
        f"{name}:{number}: {match.group()}"
        for name, text in files(prerequisite)
        for number, line in enumerate(text.splitlines(), 1)
        for match in [*MACHINE_PATH.finditer(line), *REGISTRY.finditer(line)]
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "see /" + "work/main/x",
        "/" + "home/anna/.ssh/id",
        "index-url = https://pypi" + ".org/simple",
        "GOPROXY=https://proxy" + ".example.org,direct",
        "http://deb" + ".example.org/debian bookworm main",
    ],
)
def test_the_patterns_find_what_they_are_for(text: str) -> None:
    """The rule above sees each kind of address and path that it forbids."""
    assert MACHINE_PATH.search(text) or REGISTRY.search(text)


def test_no_private_key_is_in_git(prerequisite: Callable[[str], NoReturn]) -> None:
    """No file in git holds a private key, test data included: tests make their keys."""
    start = re.compile("-----BEGIN [A-Z ]*" + "PRIVATE KEY-----\n[A-Za-z0-9+/=]{20}")
    assert [name for name, text in files(prerequisite) if start.search(text)] == []


def test_links_between_files_resolve(prerequisite: Callable[[str], NoReturn]) -> None:
    """Each relative link and picture in a Markdown file leads to a file that is there."""
    dead = []
    for name, text in files(prerequisite):
        if name.endswith(".md"):
            prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
            targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", prose)
            targets += re.findall(r'\b(?:src|srcset|href)="([^"#]+)', prose)
            dead += [
                f"{name}: {t}" for t in targets if "://" not in t and not (ROOT / name).parent.joinpath(t).exists()
            ]
    assert dead == []


# ---- code


def test_modules_are_short() -> None:
    """A module of the library has fewer than 300 lines, a function fewer than 60."""
    assert MODULES
    long = []
    for path in MODULES:
        text = read(path)
        if text.count("\n") >= MAX_MODULE_LINES:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text, str(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length >= MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert long == []


def test_module_names_say_what_is_in_them() -> None:
    """No module is a drawer for whatever has no place."""
    drawers = {"utils", "util", "helpers", "helper", "common", "base", "misc", "shared", "tools"}
    assert [str(path) for path in MODULES if drawers & set(path.relative_to(ROOT).with_suffix("").parts)] == []


# ---- commands


def test_make_shows_a_line_for_every_target() -> None:
    """Plain `make` lists each target with what it does; the targets are the ones that the README may name."""
    text = read(ROOT / "Makefile")
    targets = set(re.findall(r"^([\w.-]+):(?!=)", text, flags=re.MULTILINE)) - {".PHONY", ".NOTPARALLEL"}
    assert targets == TARGETS | {"help"}
    command = ["make", "--no-print-directory"]  # called by make itself it would say which folder it enters
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert {line.split()[1] for line in shown.splitlines() if len(line.split()) > 3} == targets


def test_the_texts_name_only_targets_that_exist(prerequisite: Callable[[str], NoReturn]) -> None:
    """README.md names `make demo` and `make test`, and every `make X` in a Markdown file is a target."""
    named = {
        target: name
        for name, text in files(prerequisite)
        if name.endswith(".md")
        for target in re.findall(r"(?:^ *(?:\$ |sudo )*|`(?:sudo )?)make (\w+)", text, flags=re.MULTILINE)
    }
    assert {target: name for target, name in named.items() if target not in TARGETS} == {}
    assert all(re.search(rf"\bmake {target}\b", read(ROOT / "README.md")) for target in ("demo", "test"))


def test_clean_leaves_records(tmp_path: Path) -> None:
    """`make clean` removes .venv and caches, and nothing under records/."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    gone = [".venv/bin/python", ".pytest_cache/x", "runbook/__pycache__/x.pyc", "notebooks/.ipynb_checkpoints/x.ipynb"]
    kept = ["records/sandbox/today/00.ipynb", "records/sandbox/.ipynb_checkpoints/x.ipynb", "runbook/plan.py"]
    for name in [*gone, *kept]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert [name for name in gone if (tmp_path / name).exists()] == []
    assert [name for name in kept if not (tmp_path / name).exists()] == []


def test_setup_installs_only_what_is_missing(tmp_path: Path) -> None:
    """Setup names the missing Debian packages, asks apt-get for these alone, and stops clearly where that fails."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/setup.sh", tmp_path / "tools")
    for name, script in {
        "dpkg-query": 'case "$*" in *debootstrap) exit 1;; esac; printf installed',
        "apt-get": 'echo "$*" >>apt.log; exit 100',
        "sudo": 'exec "$@"',
    }.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    command = ["bash", "tools/setup.sh"]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 1
    assert "missing Debian packages, installed now by apt-get: debootstrap\n" in result.stdout
    assert result.stderr == "setup: apt-get could not install debootstrap: its message is above\n"
    update, install = (tmp_path / "apt.log").read_text().splitlines()
    assert update.endswith("update")
    assert install.endswith("--no-install-recommends debootstrap")
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_stop_at_the_first_error(script: Path) -> None:
    """Each shell script is valid bash, executable, and stops at an error or an unset name."""
    text = read(script)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True, timeout=60)


def test_ci_calls_the_same_tests() -> None:
    """.ci/run calls `make test` with CI=true and leaves no test out."""
    text = read(ROOT / ".ci/run")
    assert re.search(r"^export CI=true$", text, flags=re.MULTILINE)
    assert re.search(r"\bmake test\b", text)
    recipe = read(ROOT / "Makefile").partition("\ntest:")[2].partition("\n\n")[0]
    assert re.search(r"\tpytest|/pytest", recipe)
    assert not re.search(r"\s(-m|-k|--deselect|--ignore)\b", recipe)
