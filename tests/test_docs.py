"""Every Python block of the pages runs, every command they name exists, every method is listed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from longstride.methods import REGISTRY

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_blocks_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = dict(REGISTRY)
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        for i, block in enumerate(blocks(page, "python")):
            exec(compile(block, f"{page.name}, block {i + 1}", "exec"), names)
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_commands_exist(page: Path) -> None:
    commands = {m for b in blocks(page, "bash") for m in re.findall(r"^longstride (\w+)", b, re.M)}
    for command in commands:
        call = [sys.executable, "-m", "longstride", command, "--help"]
        assert subprocess.run(call, capture_output=True, check=False).returncode == 0, command


def test_the_page_of_methods_lists_the_registry() -> None:
    text = (ROOT / "docs" / "methods.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \| [a-zA-Z]", text, re.M)) == set(REGISTRY)
