"""The terms of a whole, in words and tables."""

from maskedclip_composer.cards.markdown import Markdown, plain, table
from maskedclip_composer.cards.terms import (
    ALLOWED,
    COMMERCE,
    CONDITION,
    NO,
    PASSING_ON,
    QUESTIONS,
    RESEARCH,
    UNKNOWN,
    Terms,
)

_ASKED = {RESEARCH: "Research", COMMERCE: "Commercial use", PASSING_ON: "Publishing or passing it on"}
_ANSWERS = {
    ALLOWED: "no part forbids it",
    CONDITION: "on conditions",
    UNKNOWN: "not known: do not assume it",
    NO: "no",
}


def terms_section(terms: Terms, subject: str) -> list[str]:
    """Say what is asked of the whole, then what may be done with it and because of whom, then each licence.

    Args:
        terms: Of all parts.
        subject: What the whole is, to begin a sentence, such as `This collection as a whole`.
    """
    return [
        f"{subject},",
        "",
        *(f"- {clause}" for clause in terms.whole or ["is bound by the terms of its parts"]),
        "",
        "because its parts ask for it. Read from the names of the licences and notes on the sets; no legal advice.",
        "",
        *table(("may it be used for", "strictest answer of all parts", "why"), _answers(terms)),
        "",
        *_unknown_lines(terms),
        *_conflict_lines(terms),
        *table(("licence", "asks", "data sets"), terms.lines()),
    ]


def _answers(terms: Terms) -> list[tuple[str, str, str]]:
    return [
        (
            _ASKED[question],
            _ANSWERS[terms.strictness[question]],
            "; ".join(f"{why} ({', '.join(names)})" for why, names in terms.reasons[question].items()),
        )
        for question in QUESTIONS
    ]


def _unknown_lines(terms: Terms) -> list[str]:
    """Name the parts that are not known, which a stricter answer of another part may hide."""
    if not terms.unknown:
        return []
    return [f"**Not known**, wholly or in part, are the terms of: {plain(', '.join(terms.unknown))}.", ""]


def _conflict_lines(terms: Terms) -> list[str]:
    """Say what no licence can meet; nothing where all can be met."""
    if not terms.conflicts:
        return []
    told = "; ".join(plain(conflict) for conflict in terms.conflicts)
    return [f"**No single licence meets all of it**: {told}. Do not pass it on without legal advice.", ""]


def meaning(terms: Terms) -> Markdown:
    """Say in a sentence or two what the strictest terms together mean for weights."""
    research, commerce, passing = (terms.strictness[question] for question in QUESTIONS)
    said = {
        ALLOWED: "Nothing in the terms of the data stands against research with these weights",
        CONDITION: "Research with these weights is allowed on the conditions in the table",
        UNKNOWN: "Whether these weights may be used for research is not known",
    }[research]
    said += {
        ALLOWED: ", nor against commercial use. ",
        CONDITION: "; commercial use, too, only on its conditions. ",
        UNKNOWN: "; whether they may be used commercially is not known. ",
        NO: "; they may not be used commercially. ",
    }[commerce]
    said += {
        ALLOWED: "They may be passed on.",
        CONDITION: "They may be passed on only on the conditions in the table, all at once.",
        UNKNOWN: "Whether they may be passed on is not known: keep them where they are until it is.",
        NO: "They may not be passed on.",
    }[passing]
    return Markdown(said)
