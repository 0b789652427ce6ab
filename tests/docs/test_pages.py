"""Figures have their command beside them, files that a page names exist, the site has no dead link and no network."""

import re
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from tests.docs.commands import PAGES, ROOT, commands

FIGURE = re.compile(r"!\[[^\]]*\]\(|<img ")
TOPS = ("docs", "yamls", "tests", "benchmarks", "maskedclip_composer", "data_prep")
# Their text says how to read the names: below tests/, and of files that the reader writes.
OWN_NAMES = {Path("docs/reliability.md"), Path("docs/objectives.md")}
NAMED = re.compile(rf"`((?:{'|'.join(map(re.escape, TOPS))})/[\w./-]+\.\w+)`")


def paragraphs(page: Path) -> list[range]:
    """Lines, from 1, of each run of lines that are not empty."""
    lines = page.read_text(encoding="utf-8").splitlines()
    runs = [
        [number for number, _ in run]
        for blank, run in groupby(enumerate(lines, 1), lambda line: not line[1])
        if not blank
    ]
    return [range(run[0], run[-1] + 1) for run in runs]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_figure_has_the_command_that_made_it(page):
    """In its own paragraph, or in the one before or after it."""
    lines = page.read_text(encoding="utf-8").splitlines()
    blocks, told = paragraphs(page), {command.line for command in commands(page)}
    for place, block in enumerate(blocks):
        if any(FIGURE.search(lines[number - 1]) for number in block):
            near = [number for other in blocks[max(0, place - 1) : place + 2] for number in other]
            assert told.intersection(near), f"{page}:{block[0]}: no command beside this figure"


@pytest.mark.parametrize("page", [page for page in PAGES if page not in OWN_NAMES], ids=str)
def test_files_of_the_repository_that_a_page_names_exist(page):
    missing = [name for name in NAMED.findall(page.read_text(encoding="utf-8")) if not (ROOT / name).exists()]
    assert not missing, page


def test_the_site_needs_no_network(tmp_path):
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "-d",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").glob("*.html"))
    assert len(pages) > 15
    for page in pages:
        fetched = re.findall(r"<(?:link|script|img|iframe)\b[^>]*?(?:href|src)=\"?([^\" >]+)", page.read_text())
        assert fetched
        assert not [address for address in fetched if "//" in address], page.name


def test_dead_links_fail_the_build(tmp_path):
    """The settings of mkdocs.yml, on a site of two pages. With `--quiet` mkdocs 1.6 counts no warning."""
    settings = (ROOT / "mkdocs.yml").read_text()
    shutil.copytree(ROOT / "docs" / "site", tmp_path / "docs" / "site")
    mistakes = ["[x](data.md#no-such-heading)", "[x](no-such-page.md)", "[x](/data.md)", "[x](../README.md)"]
    (tmp_path / "docs" / "index.md").write_text("# Start\n\n" + "\n".join(mistakes))
    (tmp_path / "docs" / "data.md").write_text("# Data\n")
    (tmp_path / "docs" / "lonely.md").write_text("# In no menu\n")
    (tmp_path / "mkdocs.yml").write_text(f"{settings[: settings.index('not_in_nav:')]}nav: [index.md, data.md]\n")
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    for told in ("'#no-such-heading'", "'no-such-page.md'", "'/data.md'", "'../README.md'", "- lonely.md"):
        assert told in done.stderr, done.stderr
