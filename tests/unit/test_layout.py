"""The repository's shape: folders, links and the packaging table agree, and the house rules hold."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import diaspora_parsl

ROOT = Path(__file__).resolve().parents[2]
LINKED = ("executors", "monitors", "campaigns")
LONGEST = 800  # lines; beyond, look for the second reason to change


with (ROOT / "pyproject.toml").open("rb") as _file:
    PYPROJECT: dict[str, Any] = tomllib.load(_file)


def _home(package: str) -> Path:
    """The real folder of a package."""
    parts = package.split(".")[1:]
    return ROOT.joinpath(*parts) if parts and parts[0] in LINKED else ROOT.joinpath("diaspora_parsl", *parts)


def _sources() -> list[Path]:
    return [p for top in ("diaspora_parsl", *LINKED) for p in sorted((ROOT / top).rglob("*.py"))]


@pytest.mark.parametrize("name", LINKED)
def test_link_is_relative_and_hits_the_real_folder(name: str) -> None:
    link = ROOT / "diaspora_parsl" / name
    assert link.is_symlink(), f"restore it: ln -s ../{name} diaspora_parsl/{name}"
    assert os.readlink(link) == f"../{name}"  # noqa: PTH115 - Path would make it absolute
    assert (ROOT / name / "__init__.py").is_file()
    assert not (ROOT / name).is_symlink()


def test_every_package_stands_in_the_table() -> None:
    listed = set(PYPROJECT["tool"]["setuptools"]["packages"])
    found = {"diaspora_parsl"}
    for path in (ROOT / "diaspora_parsl").rglob("__init__.py"):  # does not follow the links
        found.add(".".join(path.parent.relative_to(ROOT).parts))
    for name in LINKED:
        for path in (ROOT / name).rglob("__init__.py"):
            found.add(".".join(("diaspora_parsl", *path.parent.relative_to(ROOT).parts)))
    assert listed == found


def test_table_maps_the_linked_folders_only() -> None:
    table = PYPROJECT["tool"]["setuptools"]["package-dir"]
    expected = {"diaspora_parsl": "diaspora_parsl"}
    for package in PYPROJECT["tool"]["setuptools"]["packages"]:
        if package.split(".")[1:2] and package.split(".")[1] in LINKED:
            expected[package] = package.split(".", 1)[1].replace(".", "/")
    assert table == expected


def test_versions_agree() -> None:
    assert PYPROJECT["project"]["version"] == diaspora_parsl.__version__


@pytest.mark.parametrize("name", LINKED)
def test_top_level_import_is_refused(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert f"ImportError: import diaspora_parsl.{name}, not {name}" in done.stderr


def test_public_names_resolve() -> None:
    for name in diaspora_parsl.__all__:
        assert getattr(diaspora_parsl, name) is not None
    assert set(diaspora_parsl.__all__) <= set(dir(diaspora_parsl))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = diaspora_parsl.nonsense


def test_import_is_lazy() -> None:
    code = "import sys, diaspora_parsl; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"parsl", "redis", "msgspec", "rich", "typer", "psutil"} & set(done.stdout.split())


def test_no_file_grew_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in _sources()}
    assert {path: length for path, length in lengths.items() if length > LONGEST} == {}


def test_modules_say_in_one_line_what_they_are() -> None:
    talkative = {
        path.relative_to(ROOT).as_posix()
        for path in _sources()
        if "\n" in (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "\n")
    }
    assert {path for path in talkative if not path.endswith("__init__.py")} <= {
        "diaspora_parsl/core/machine.py",  # the theory of operation
        "diaspora_parsl/errors.py",  # draws the tree of errors
        "diaspora_parsl/fabric/transports/redis/embedded_supervisor.py",  # a program: says how it is called
        "executors/parsl/adapter.py",  # names the test that it depends on
    }


@pytest.mark.serial
def test_sdist_and_wheel_need_no_links_and_hold_everything(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    ignored = shutil.ignore_patterns("__pycache__", *LINKED)
    shutil.copytree(ROOT / "diaspora_parsl", tree / "diaspora_parsl", ignore=ignored)
    for name in LINKED:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    expected = {
        "diaspora_parsl/" + str(path.relative_to(tree / "diaspora_parsl" if top == "diaspora_parsl" else tree))
        for top in ("diaspora_parsl", *LINKED)
        for path in (tree / top).rglob("*")
        if path.is_file()
    }

    sdist = _build("sdist", tree, tmp_path)
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later
        archive.extractall(tmp_path)  # noqa: S202 - it was built a moment ago
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    assert (unpacked / "LICENSE").is_file()

    with zipfile.ZipFile(_build("wheel", unpacked, tmp_path)) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
        entry_points = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
        assert b"diaspora-parsl = diaspora_parsl.cli.main:main" in wheel.read(entry_points)
    assert held == expected
    assert {"diaspora_parsl/py.typed", "diaspora_parsl/campaigns/screening/data/1ia1.pdbqt"} <= held


def _build(what: str, tree: Path, out: Path) -> Path:
    """What `pip` and `build` do, without an environment of its own."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{what}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=tree, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


def test_no_package_holds_too_many_modules() -> None:
    """About a dozen is the rule; what is more is grouped."""
    counts: dict[str, int] = {}
    for path in _sources():
        counts[path.parent.relative_to(ROOT).as_posix()] = counts.get(path.parent.relative_to(ROOT).as_posix(), 0) + 1
    assert {folder: count for folder, count in counts.items() if count > 14} == {}


#: Names that the design replaced; distinctive ones only.
_OLD_NAMES = (
    "wards", "weighing", "NodeBook", "Chorus", "darkness", "Waitroom", "FabricSeen", "WaySeen", "Rumour", "Chronicle",
    "Hushed", "_judge", "down_limit", "repeatable", "slots_cap", "heir", "retry_share", "shun_time", "dark_since",
)  # fmt: skip


@pytest.mark.parametrize("name", _OLD_NAMES)
def test_no_old_name_is_left_in_the_product(name: str) -> None:
    pattern = re.compile(rf"\b{name}\b")
    assert [str(path.relative_to(ROOT)) for path in _sources() if pattern.search(path.read_text("utf-8"))] == []
