"""Figures have their command beside them, files that a page names exist, the site has no dead link and no network."""

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.docs.commands import PAGES, ROOT, commands, marked

FIGURE = re.compile(r"!\[[^\]]*\]\(|<img ")
ALL_OF_PAGE = re.compile(r"command made all figures")
TOPS = ("docs", "yamls", "tests", "benchmarks", "maskedclip_composer", "data_prep")
# Their text says how to read the names: below tests/, and of files that the reader writes.
OWN_NAMES = {Path("docs/reliability.md"), Path("docs/objectives.md")}
NAMED = re.compile(rf"`((?:{'|'.join(map(re.escape, TOPS))})/[\w./-]+\.\w+)`")


def without_command(page: Path) -> list[int]:
    """Return the lines of figures that have no command in their section, or right below the heading that follows them.

    A page whose introduction has a command and says that it made all figures needs no more.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    told = [command.line for command in commands(page)]
    starts = [number for number, line, fence in marked(lines) if fence is None and line.startswith("#")]
    sections = list(pairwise([*starts, len(lines) + 1]))
    introduction = range(1, sections[0][1])
    if told and told[0] in introduction and ALL_OF_PAGE.search(" ".join(lines[: introduction.stop - 1])):
        return []
    missing = []
    for begin, end in sections:
        for number in range(begin, end):
            reach = end + 6 if end - number <= 3 else end
            if FIGURE.search(lines[number - 1]) and not any(begin <= line < reach for line in told):
                missing.append(number)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_figure_has_the_command_that_made_it(page):
    assert not without_command(page)


def test_a_figure_without_a_command_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n\n    make demo\n\n## B\n\n![x](x.png)\n\nText.\n\n## C\n\n![y](y.png) of `make bench`\n" + "\n" * 9
    )
    assert without_command(page) == [7]
    page.write_text("# A\n\n    make demo\n\nThe command made all figures of this page.\n\n## B\n\n![x](x.png)\n")
    assert without_command(page) == []


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
