"""Names in the Markdown of MLflow's descriptions."""


def plain(text: str) -> str:
    """Keep what a name says from being taken for Markdown or HTML."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, "\\" + character)
    return text
