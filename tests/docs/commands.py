"""Every command that README.md, CONTRIBUTING.md and docs/*.md show, in blocks and in running text."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [Path("README.md"), Path("CONTRIBUTING.md"), *sorted(Path("docs").glob("*.md"))]

_PROGRAMS = ("composer", "python", "make", "mlflow", "pip", "bash", "sbatch", "docker")
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
_STARTS = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:{'|'.join(_PROGRAMS)})(?: |$)")
_INLINE = re.compile(rf"`((?:[A-Z_]+=\S+ )*(?:{'|'.join(_PROGRAMS)})\b[^`|]*)`")


@dataclass(frozen=True)
class Command:
    """One command; `text` as it is printed, with continued lines joined."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @cached_property
    def words(self) -> list[str]:
        """What a shell makes of it, without comment and variables in front.

        A lone … stands for arguments that the page leaves out and stays; in a word it is something of the reader's own,
        each another one.
        """
        words = shlex.split(self.text, comments=True)
        while words and _ASSIGNMENT.fullmatch(words[0]):
            words.pop(0)
        return [word if word == "…" else word.replace("…", f"own{number}") for number, word in enumerate(words)]


def commands(page: Path) -> list[Command]:
    """Return the commands of a page in their order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found = [Command(str(page), number, text) for number, text in _blocks(lines)]
    found += [Command(str(page), number, text) for number, text in _inline(lines)]
    return sorted(found, key=lambda command: command.line)


def fenced(page: Path) -> list[Command]:
    """Return those of the blocks marked as bash alone: what a reader is meant to type, one after the other."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return [Command(str(page), number, text) for number, text in _joined(_bash_lines(lines))]


def _blocks(lines: list[str]) -> Iterator[tuple[int, str]]:
    yield from _joined(_bash_lines(lines))
    indented = _joined((number, line[4:]) for number, line, fence in marked(lines) if not fence and line[:4] == " " * 4)
    yield from ((number, text) for number, text in indented if _STARTS.match(text))


def _bash_lines(lines: list[str]) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line, fence in marked(lines) if fence in ("bash", "sh", "shell", "console"))


def _inline(lines: list[str]) -> Iterator[tuple[int, str]]:
    # A code span may be broken between two lines.
    prose = "\n".join("" if fence is not None or line[:4] == " " * 4 else line for _, line, fence in marked(lines))
    for match in _INLINE.finditer(prose):
        yield prose.count("\n", 0, match.start()) + 1, " ".join(match[1].split())


def marked(lines: list[str]) -> Iterator[tuple[int, str, str | None]]:
    """Yield number, line, and the language of the fenced block that it is in: None outside, '' where none is named."""
    fence: str | None = None
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith("```"):
            fence = line.strip().removeprefix("```").strip() if fence is None else None
            yield number, "", fence if fence is None else ""
        else:
            yield number, line, fence


def _joined(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Join lines that end in a backslash, and those of an open quotation."""
    start, text, between = 0, "", ""
    for number, line in lines:
        start, text = (start, f"{text}{between}{line.strip() if between == ' ' else line}") if text else (number, line)
        between = "\n"
        if text.endswith("\\"):
            text, between = text[:-1].rstrip(), " "
            continue
        try:
            words = shlex.split(text, comments=True)
        except ValueError:
            continue
        if words:
            yield start, text
        text = ""
    assert not text, f"line {start}: the command does not end: {text}"
