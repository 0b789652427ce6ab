"""What the licences of data sets ask of what is made from them, read from the words in them.

No legal advice. Whatever the words do not say is called not known; nothing is guessed. A word that is not known here
makes its part not known, since it may take back what the words beside it allow.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

ALLOWED, CONDITION, UNKNOWN, NO = range(4)
"""How strict an answer is: each is stricter than those before it."""

RESEARCH, COMMERCE, PASSING_ON = "research", "commercial use", "passing it on"
QUESTIONS = (RESEARCH, COMMERCE, PASSING_ON)

Answer = tuple[int, str]


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a licence or the terms of a set ask.

    Attributes:
        marks: Words that tell it, small and with spaces for hyphens. Each counts as a whole: `ask` is not in `task`.
        asks: What is to be done.
        whole: What that means for a whole that has such a part.
        answers: How strict it is in each question that it bears on, and why.
    """

    marks: tuple[str, ...]
    asks: str
    whole: str
    answers: dict[str, Answer]


def _all(strictness: int, words: str) -> dict[str, Answer]:
    return dict.fromkeys(QUESTIONS, (strictness, words))


DEMANDS = (
    Demand(
        marks=("cc by", "attribution"),
        asks="credit the authors",
        whole="must be credited to the authors below",
        answers={PASSING_ON: (CONDITION, "with credit to the authors")},
    ),
    Demand(
        marks=(
            *("nc", "non commercial", "noncommercial", "non commercial use", "noncommercial use"),
            *("no commercial use", "not for commercial use", "for non commercial use only"),
        ),
        asks="no commercial use",
        whole="may not be used commercially",
        answers={COMMERCE: (NO, "non-commercial"), PASSING_ON: (CONDITION, "for non-commercial use alone")},
    ),
    Demand(
        marks=(
            *("research use", "research use only", "for research use only", "research only", "for research only"),
            *("for research purposes", "research purposes only", "for research purposes only"),
        ),
        asks="research use only",
        whole="may be used for research only",
        answers={COMMERCE: (NO, "research use only")},
    ),
    Demand(
        marks=("competition rules", "as the competition's rules say"),
        asks="use as the competition allows",
        whole="may be used only as the rules of competitions allow",
        answers=_all(CONDITION, "as the rules of the competition allow"),
    ),
    Demand(
        marks=("challenge", "challenge terms", "challenge data"),
        asks="use as the challenge allows",
        whole="may be used only as the terms of challenges allow",
        answers=_all(CONDITION, "as the terms of the challenge allow"),
    ),
    Demand(
        marks=(
            *("agreement", "on agreement", "training and agreement", "adcis agreement", "credentialed"),
            "physionet credentialed health data licence",
        ),
        asks="use by those who have signed",
        whole="may be used only by those who have signed for it",
        answers=_all(CONDITION, "by and to those who have signed for it"),
    ),
    Demand(
        marks=("registration",),
        asks="use by those who have registered",
        whole="may be used only by those who have registered for it",
        answers=_all(CONDITION, "by and to those who have registered for it"),
    ),
    Demand(
        marks=(
            *("no redistribution", "do not redistribute", "not for redistribution"),
            *("may not be redistributed", "must not be redistributed"),
        ),
        asks="not to be passed on",
        whole="may not be passed on",
        answers={PASSING_ON: (NO, "no redistribution")},
    ),
    Demand(
        marks=("nd", "no derivatives", "no derivatives to be shared"),
        asks="pass on unchanged only",
        whole="may not be passed on in another form, which shards and weights are",
        answers={PASSING_ON: (NO, "no derivatives")},
    ),
    Demand(
        marks=("sa", "share alike", "sharealike"),
        asks="pass on under the same licence",
        whole="must keep that licence where it may be passed on at all",
        answers={PASSING_ON: (CONDITION, "under the same licence (share-alike)")},
    ),
    Demand(
        marks=("on request", "ask", "ask before anything else", "ask the authors before anything else"),
        asks="ask the owners",
        whole="may not be passed on without asking owners",
        answers={PASSING_ON: (CONDITION, "after asking the owners")},
    ),
    Demand(
        marks=("none stated", "unclear", "unclear: scans of books", "unknown", "provenance unknown"),
        asks="no known terms",
        whole="has parts whose terms nobody has stated",
        answers=_all(UNKNOWN, "no licence is stated"),
    ),
    Demand(
        marks=("check at the source", "as stated at the source"),
        asks="check the terms at the source",
        whole="needs its terms checked at the sources",
        answers=_all(UNKNOWN, "the terms are to be checked at the source"),
    ),
)
_NOT_GIVEN = Demand(
    marks=(),
    asks="unknown",
    whole="has parts whose terms were not given",
    answers=_all(UNKNOWN, "no terms were given"),
)
# Of words that none of the above tells.
_AS_IT_SAYS = Demand(marks=(), asks="as it says", whole="", answers=_all(UNKNOWN, "read what it says"))
_FREE = ("cc0", "public domain")  # asks nothing
_ASIDE = ("1.0", "2.0", "2.5", "3.0", "4.0", "international", "no open host")  # no terms
_ORDER = [*DEMANDS, _NOT_GIVEN, _AS_IT_SAYS]
_MARKS = sorted((*(mark for demand in DEMANDS for mark in demand.marks), *_FREE, *_ASIDE), key=len, reverse=True)
_MARK = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, _MARKS))})(?!\w)")


@dataclass(frozen=True, order=True)
class Part:
    """A data set, or weights that training started from: its name, its licence, and what else is said of its terms."""

    name: str
    licence: str
    said: str = ""

    @property
    def demands(self) -> tuple[Demand, ...]:
        """All that its words tell, and that something is not known where a word of them is not."""
        words = re.sub(r"[\s_-]+", " ", f"{self.licence}; {self.said}".lower())
        marks = set(_MARK.findall(words))
        found = tuple(demand for demand in DEMANDS if not marks.isdisjoint(demand.marks))
        if not self.licence:
            return (*found, _NOT_GIVEN)
        is_all_known = (found or not marks.isdisjoint(_FREE)) and not re.search(r"\w", _MARK.sub("", words))
        return found if is_all_known else (*found, _AS_IT_SAYS)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of all parts together: every demand of each part holds for the whole.

    Attributes:
        parts: Of the whole, sorted.
        asks: What its parts ask, one clause each.
        whole: What that means for the whole, likewise.
        strictness: By question, of the strictest part.
        reasons: By question, why, with the parts that say so; only reasons of that strictness.
        unknown: Parts of which something is not known.
        conflicts: Demands on passing it on that no single licence can meet.
    """

    parts: Sequence[Part]
    asks: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    strictness: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, parts: Iterable[Part]) -> "Terms":
        """Combine parts. A further part never loosens anything."""
        parts = sorted(set(parts))
        asked = {demand.asks for part in parts for demand in part.demands}
        strictness, reasons = {}, {}
        for question in QUESTIONS:
            found = [
                (demand.answers[question], part.name)
                for part in parts
                for demand in part.demands
                if question in demand.answers
            ]
            strictness[question] = max((strict for (strict, _), _ in found), default=ALLOWED)
            reasons[question] = {}
            for (strict, why), name in found:
                if strict == strictness[question] and name not in reasons[question].setdefault(why, []):
                    reasons[question][why].append(name)
        ordered = [demand for demand in _ORDER if demand.asks in asked]
        unknown = [
            part.name
            for part in parts
            if any(strict == UNKNOWN for demand in part.demands for strict, _ in demand.answers.values())
        ]
        return cls(
            parts=parts,
            asks=[demand.asks for demand in ordered],
            whole=[demand.whole for demand in ordered if demand.whole],
            strictness=strictness,
            reasons=reasons,
            unknown=list(dict.fromkeys(unknown)),
            conflicts=_conflicts(parts),
        )

    def lines(self) -> list[tuple[str, str, str]]:
        """Return licence, what it asks, and whose it is; a line for each licence and what is asked."""
        sets: dict[tuple[str, str], list[str]] = {}
        for part in self.parts:
            asks = "; ".join(demand.asks for demand in part.demands) or "nothing"
            sets.setdefault((part.licence, asks), []).append(part.name)
        return [
            (licence or "not given", asks, ", ".join(dict.fromkeys(names)))
            for (licence, asks), names in sorted(sets.items())
        ]


def _conflicts(parts: Sequence[Part]) -> list[str]:
    """Name share-alike licences beside what they forbid to add: another one, or a further restriction."""
    alike = {part.licence or part.name for part in parts if _has(part, "pass on under the same licence")}
    stricter = [
        part.name
        for part in parts
        if any(_has(part, asks) for asks in ("no commercial use", "research use only", "not to be passed on"))
        and part.licence not in alike
    ]
    found = []
    if len(alike) > 1:
        found.append(f"share-alike under several licences at once: {', '.join(sorted(alike))}")
    if alike and stricter:
        found.append(
            f"share-alike ({', '.join(sorted(alike))}) beside restrictions that it does not have: {', '.join(stricter)}"
        )
    return found


def _has(part: Part, asks: str) -> bool:
    return any(demand.asks == asks for demand in part.demands)
