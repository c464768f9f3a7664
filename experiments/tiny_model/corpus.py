"""The training text of the tiny model: named packages with named licences, in five domains.

Routing is only worth recording if the model has something to specialise on, so the corpus mixes
unlike kinds of text: old prose, dictionary wit, reference documentation, program code, and symbolic
mathematics. Everything comes through the ordinary clients of two package registries (`pip
download`, `apt-get download`; a Debian 12 machine has both); nothing is installed, the archives are
only unpacked into a cache folder.

Each document is split by a hash of its name into training (96 %) and validation (4 %), so that the
split does not depend on order, time or machine.
"""

# ruff: noqa: S603, S607 - registry clients run by name, with arguments that stand in this file
from __future__ import annotations

import ast
import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VALIDATION_SHARE = 0.04
DOMAIN_CAP_CHARS = 3_600_000  # the smaller domains are used whole, the larger ones sampled by hash


@dataclass(frozen=True)
class Source:
    """One package, the domain of its text, and the licence that lets it be redistributed."""

    domain: str
    registry: str  # "debian" or "pypi"
    package: str
    licence: str


SOURCES = (
    Source("prose", "debian", "bible-kjv-text", "public domain (King James Version, 1611)"),
    Source("prose", "debian", "dict-devil", "public domain (Devil's Dictionary, 1911)"),
    Source("jargon", "debian", "dict-jargon", "public domain (The Jargon File 4.4.7)"),
    Source("docs", "debian", "python3.11-doc", "PSF-2.0 (documentation of Python 3.11)"),
    Source("code", "debian", "libpython3.11-stdlib", "PSF-2.0 (standard library of Python 3.11)"),
    Source("code", "pypi", "networkx==3.6.1", "BSD-3-Clause"),
    Source("math", "pypi", "sympy==1.14.0", "BSD-3-Clause"),
)
READERS = ("bible-kjv",)  # GPL program, run to unpack the public-domain text; nothing of it is kept


@dataclass(frozen=True)
class Document:
    """One text with the domain and the name it is split by."""

    domain: str
    name: str
    text: str

    @property
    def is_validation(self) -> bool:
        """Whether the document is held out, decided by a hash of its name alone."""
        return _unit_hash(self.name) < VALIDATION_SHARE


def _unit_hash(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def fetch(cache: Path) -> Path:
    """Download and unpack every source under `cache`, once; returns the unpacked folder."""
    unpacked = cache / "unpacked"
    unpacked.mkdir(parents=True, exist_ok=True)
    for registry, package in [(s.registry, s.package) for s in SOURCES] + [
        ("debian", name) for name in READERS
    ]:
        target = unpacked / package
        if target.exists():
            continue
        download = cache / "download" / package
        shutil.rmtree(download, ignore_errors=True)
        download.mkdir(parents=True)
        if registry == "pypi":
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*pip, "--quiet", "--dest", ".", package], cwd=download, check=True)
            with zipfile.ZipFile(next(download.glob("*.whl"))) as wheel:
                wheel.extractall(target)
        else:
            subprocess.run(["apt-get", "download", "-qq", package], cwd=download, check=True)
            archive = next(download.glob("*.deb"))
            subprocess.run(["dpkg-deb", "-x", archive, target], check=True)
    return unpacked


def documents(unpacked: Path) -> Iterator[Document]:
    """Yield every document of every source, in a fixed order."""
    yield from _bible(unpacked)
    yield from _dictionary(unpacked / "dict-devil", "prose", "devil")
    yield from _dictionary(unpacked / "dict-jargon", "jargon", "jargon")
    for path in sorted((unpacked / "python3.11-doc").rglob("_sources/**/*.rst.txt")):
        if "whatsnew/changelog" not in path.as_posix():
            yield Document("docs", f"docs/{path.parent.name}/{path.name}", _read(path))
    for package in ("libpython3.11-stdlib", "networkx==3.6.1"):
        for path in sorted((unpacked / package).rglob("*.py")):
            skipped = {"test", "tests", "encodings", "lib2to3", "idlelib"} & set(path.parts)
            if path.is_file() and not skipped:
                yield Document("code", f"code/{path.parent.name}/{path.name}", _read(path))
    for path in sorted((unpacked / "sympy==1.14.0").rglob("*.py")):
        text = _docstrings(_read(path))
        if len(text) > 500:
            yield Document("math", f"math/{path.parent.name}/{path.name}", text)


def capped(texts: list[Document]) -> list[Document]:
    """At most `DOMAIN_CAP_CHARS` of each domain, the documents chosen by a hash of their names."""
    used: dict[str, int] = {}
    kept = []
    for document in sorted(texts, key=lambda d: _unit_hash("order/" + d.name)):
        room = DOMAIN_CAP_CHARS - used.get(document.domain, 0)
        if len(document.text) <= room:
            used[document.domain] = used.get(document.domain, 0) + len(document.text)
            kept.append(document)
    return kept


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _bible(unpacked: Path) -> Iterator[Document]:
    reader = unpacked / "bible-kjv" / "usr" / "bin" / "bible"
    data = unpacked / "bible-kjv-text" / "usr" / "lib"
    verses = subprocess.run(
        [reader, "-f", "-l4000", "-p", data, "gen1:1-rev22:21"],
        capture_output=True,
        check=True,
        text=True,
        errors="replace",
    ).stdout
    chapters: dict[str, list[str]] = {}
    for line in verses.splitlines():
        match = re.match(r"(\w+?\d+):\d+ (.*)", line)
        if match:
            chapters.setdefault(match[1], []).append(match[2])
    for chapter, lines in chapters.items():
        yield Document("prose", f"bible/{chapter}", "\n".join(lines) + "\n")


def _dictionary(root: Path, domain: str, name: str) -> Iterator[Document]:
    with gzip.open(
        root / "usr" / "share" / "dictd" / f"{name}.dict.dz", "rt", errors="replace"
    ) as f:
        text = f.read()
    paragraphs = re.split(r"\n{2,}(?=\S)", text)
    for start in range(0, len(paragraphs), 40):  # 40 entries make one document
        yield Document(
            domain, f"{name}/{start}", "\n\n".join(paragraphs[start : start + 40]) + "\n"
        )


def _docstrings(source: str) -> str:
    """All docstrings of a module: formulas and worked examples rather than program text."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n\n".join(text for text in found if text and ">>>" in text)
