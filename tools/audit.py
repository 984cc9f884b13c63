"""Hold requirements.lock against what is known of vulnerabilities, or write what it holds as an SBOM.

    python tools/audit.py              exit 0: looked up, none known; 1: some are; 3: nothing could be looked up
    python tools/audit.py --sbom FILE  CycloneDX 1.6 as JSON, with the hashes of the lock

Both tools come from PyPI into an environment of their own: what checks the packages is none of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
ENVIRONMENT = ROOT / ".venv-audit"
TOOLS = ("pip-audit==2.10.1", "cyclonedx-bom==7.5.0")
SERVICES = {"pypi": "PyPI's advisories", "osv": "osv.dev"}
_DEADLINE_S = 600
_SHOWN = 5


def verdict(name: str, told: dict[str, Any]) -> tuple[int, list[str]]:
    """What pip-audit's JSON comes to.

    Args:
        name: Whose data it asked.
        told: Its output; a package that it could not look up has a `skip_reason`.

    Returns:
        The exit status and what to say, a line each.
    """
    packages = told.get("dependencies", [])
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    looked_up = len(packages) - len(skipped)
    if not looked_up:
        return 3, [f"{name}: can't be reached from here: none of {len(packages)} packages was looked up"]
    lines = [
        f"{one['name']} {one['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none yet'}"
        for one in packages
        for found in one.get("vulns", ())
    ]
    status = 1 if lines else 0
    lines.append(f"{name}: {looked_up} packages looked up, {len(lines)} known vulnerabilities")
    if skipped:
        more = ", …" if len(skipped) > _SHOWN else ""
        lines.append(f"{name}: {len(skipped)} not looked up: {', '.join(skipped[:_SHOWN])}{more}")
    return status, lines


def audit() -> int:
    """Ask each service until one answers; returns the exit status."""
    for service, name in SERVICES.items():
        command = ["pip-audit", "--disable-pip", "--require-hashes", "-r", str(LOCK), "-s", service, "-f", "json"]
        done = _run(*command, "--progress-spinner", "off", check=False)
        try:
            status, lines = verdict(name, json.loads(done.stdout))
        except json.JSONDecodeError:
            status, lines = 3, [f"{name}: can't be reached from here: {(done.stderr.strip() or 'no answer')[-200:]}"]
        print(*(f"audit: {line}" for line in lines), sep="\n")
        if status != 3:  # noqa: PLR2004 - nothing could be looked up
            return status
    print("audit: nothing was checked. Run this where one of the two can be reached, before each release.")
    return 3


def sbom(target: Path) -> None:
    """Write the SBOM of the lock; it is validated against CycloneDX's schema as it is written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shape = ("--pyproject", str(ROOT / "pyproject.toml"), "--sv", "1.6", "--of", "JSON", "--output-reproducible")
    _run("cyclonedx-py", "requirements", str(LOCK), *shape, "-o", str(target), check=True)
    count = len(json.loads(target.read_text(encoding="utf-8"))["components"])
    print(f"sbom: {target}, {count} packages")


def _run(program: str, *words: str, check: bool) -> subprocess.CompletedProcess[str]:
    command = [str(ENVIRONMENT / "bin" / program), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    if check and done.returncode:
        sys.exit(f"{program} ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
    return done


def install() -> None:
    """Have the tools in their environment."""
    uv = str(ROOT / ".venv/bin/uv")
    if not (ENVIRONMENT / "bin/python").exists():
        subprocess.run([uv, "venv", "-q", str(ENVIRONMENT)], check=True, timeout=_DEADLINE_S)
    subprocess.run([uv, "pip", "install", "-q", "-p", str(ENVIRONMENT), *TOOLS], check=True, timeout=_DEADLINE_S)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="known vulnerabilities of requirements.lock, or its SBOM")
    arguments.add_argument("--sbom", type=Path, metavar="FILE", help="write the SBOM there, and look nothing up")
    asked = arguments.parse_args()
    install()
    if asked.sbom:
        sbom(asked.sbom)
    else:
        sys.exit(audit())
