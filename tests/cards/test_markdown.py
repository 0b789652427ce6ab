"""What others have named something is read as they wrote it, and does nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from maskedclip_composer.cards.markdown import code, plain, table
from maskedclip_composer.cards.paths import without_folders

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
NASTY = "a|b <script>alert(1)</script> **c** [d](javascript:e) `f` _g_ ~~h~~ ![i](j) &lt; <!-- \n# k\n\n- l $m$ \\| n_o"


def tokens(text):
    return [part for token in PARSER.parse(text) for part in (token, *(token.children or []))]


def texts(text):
    return "".join(token.content for token in tokens(text) if token.type in ("text", "code_inline"))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab |\\`*_[]()<>&;#~!$-+.:\n\t1ltgé\"'"), max_size=30))
def test_any_text_in_a_cell_stays_one_cell_and_is_read_as_it_was(text):
    lines = "\n".join(table(("head", "other"), [(text, "x")]))
    found = tokens(lines)
    assert [token.tag for token in found if token.type in ("th_open", "td_open")] == ["th", "th", "td", "td"]
    assert {token.type for token in found if token.nesting >= 0} <= {
        *("table_open", "thead_open", "tbody_open", "tr_open", "th_open", "td_open", "inline", "text", "text_special"),
    }
    assert texts(lines) == f"headother{' '.join(text.split())}x"


def test_nasty_words_within_a_line():
    found = tokens(f"- it is called {plain(NASTY)}.")
    assert {token.type for token in found} <= {
        *("bullet_list_open", "list_item_open", "paragraph_open", "inline", "text", "text_special"),
        *("paragraph_close", "list_item_close", "bullet_list_close"),
    }
    assert " ".join(NASTY.split()) in texts(f"- it is called {plain(NASTY)}.")


def test_code_keeps_hashes_and_commands_and_hands_the_rest_to_plain():
    assert code("a_b*c") == "`a_b*c`"
    assert code("a`b|c") == plain("a`b|c")
    assert code("") == ""
    assert plain(code("a_b*")) == "`a_b*`"  # not escaped again


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("random initialisation of /home/me/runs/x", "random initialisation of x"),
        ("mae:/data/w/a.pth", "mae:a.pth"),
        ("s3://k:secret@b/x/y", "y"),
        ("mae:s3://bucket/team/a.pth, then gs://bucket", "mae:a.pth, then ***"),
        ("s3://bucket/", "***"),
        ("weights of C:\\Users\\my self\\a.pth", "weights of a.pth"),
        ("mae:D:/data/w/a.pth", "mae:a.pth"),
        (r"\\server\share\team\a.pth is absent", "a.pth is absent"),
        (repr("C:\\Users\\me\\a.pth"), "'a.pth'"),
        ("/data/my weights/x", "x"),
        ("/data/my weights (old)/x (new)", "x (new)"),
        ("of '/data/my old weights/x y.pth'", "of 'x y.pth'"),
        ("/data/x is at /home/me/y", "x is at y"),
        ("/data/x and mae:/data/w/a.pth of https://a.example/x/y", "x and mae:a.pth of https://a.example/x/y"),
        ("a,/data/x;~me/b/c", "a,x;c"),
        ("`/data/x`", "`x`"),
        ("https://a.example/x/y", "https://a.example/x/y"),
        ("some/model and/or other", "some/model and/or other"),
        ("~/x/y.txt is absent", "y.txt is absent"),
    ],
)
def test_paths_of_a_machine_are_cut_to_their_last_name(text, expected):
    assert without_folders(text) == expected


@pytest.mark.parametrize(
    "part", ["\\", "/", "/a ", "a b ", "/a(", "c:\\a b ", "s3://a b ", "~", "a:", "(", "\\\\a (b) "]
)
@pytest.mark.timeout(30)
def test_a_long_text_of_anybodys_making_is_read_at_once(part):
    """A hundred thousand characters: what looked over and over from each of them would not come back."""
    assert isinstance(without_folders(part * (100_000 // len(part))), str)
