"""What `make lock` and `make test-oldest` install, said for pip; reads only, prints a file.

    requirements.py lock REPORT   the packages of a `pip install --dry-run --report`, pinned
    requirements.py oldest        the lower bounds of pyproject.toml, pinned

torch, and what its build for NVIDIA brings along, is chosen by the Makefile and not in the lock.
"""

import json
import re
import sys
import tomllib
from pathlib import Path

HEAD = "# Every package of the development environment but torch; written by `make lock`."
NOT_LOCKED = re.compile(r"(torch|triton|nvidia-(?!ml-py)|cuda-|specmd-bench)")


def lock(report: Path) -> list[str]:
    """Return `name==version` of what pip would install, names in the order of the alphabet."""
    found = []
    for package in json.loads(report.read_text(encoding="utf-8"))["install"]:
        about = package["metadata"]
        name = re.sub(r"[-_.]+", "-", about["name"]).lower()
        if not NOT_LOCKED.match(name):
            found.append(f"{name}=={about['version']}")
    return [HEAD, *sorted(found)]


def oldest() -> list[str]:
    """Return every requirement of pyproject.toml but torch at its lower bound."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    asked = [each for group in groups for each in group if not each.startswith("torch>")]
    return [each.replace(">=", "==") for each in asked]


if __name__ == "__main__":
    lines = lock(Path(sys.argv[2])) if sys.argv[1] == "lock" else oldest()
    sys.stdout.write("\n".join(lines) + "\n")
