"""What the wheel must hold; `.ci/run` builds one and uses it from another directory."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_listed():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    places = {
        "specmd": ROOT / "specmd",
        "specmd.policies": ROOT / "policies",
        "specmd.hardware_profiles": ROOT / "hardware_profiles",
        "specmd.published": ROOT / "experiments" / "published",
    }
    found = {
        ".".join([name, *path.parent.relative_to(folder).parts])
        for name, folder in places.items()
        for path in folder.rglob("__init__.py")
    }
    assert found - listed == set(), "add them to [tool.setuptools] packages in pyproject.toml"
    assert listed - found == set(), "these are gone: take them out of pyproject.toml"


def test_the_version_is_the_same_everywhere():
    import specmd

    assert PROJECT["project"]["version"] == specmd.__version__


def test_the_program_is_installed_by_its_name():
    assert PROJECT["project"]["scripts"]["specmd"] == "specmd.__main__:main"
