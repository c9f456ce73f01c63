"""Every Python block of the pages runs, every command they name exists, every method is listed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from longstride.cli import app
from longstride.grid import GRIDS
from longstride.methods import REGISTRY
from longstride.systems import SYSTEMS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def listed(heading: str, page: str = "methods.md") -> list[str]:
    """First cells of the table under a heading of a page."""
    text = (ROOT / "docs" / page).read_text()
    section = re.split(rf"^#+ {heading}$", text, flags=re.MULTILINE)[1]
    return re.findall(r"^\| `(\w+)` \|", re.split(r"^#", section, flags=re.MULTILINE)[0], re.MULTILINE)


@pytest.fixture
def registry() -> Iterator[None]:
    """What a page registers is gone after it, whether it ran or failed."""
    tables = (REGISTRY, SYSTEMS)
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        for i, block in enumerate(blocks(page, "python")):
            exec(compile(block, f"{page.name}, block {i + 1}", "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_commands_exist(page: Path) -> None:
    for command in {m for b in blocks(page, "bash") for m in re.findall(r"^longstride (\w+)", b, re.M)}:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


def test_the_page_of_methods_lists_the_registry() -> None:
    assert sorted(listed("Methods")) == sorted(REGISTRY)
    assert sorted(listed("Grids")) == sorted(GRIDS)


def test_the_pages_of_systems_and_equations_list_the_registry() -> None:
    found = listed("Systems", "systems.md") + listed("Equations", "equations.md")
    assert sorted(found) == sorted(SYSTEMS)
