"""Texts of users in Markdown: they stay what they were, and become no markup."""

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from vgg16_transfer.markdown import from_plain, plain

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HARMLESS = {"inline", "text", "text_special", "paragraph_open", "paragraph_close"}


@given(text=st.text() | st.text("\\`*_|<&;#amplt ", max_size=12))
def test_a_text_comes_back_but_for_its_white_space(text: str) -> None:
    assert from_plain(plain(text)) == " ".join(text.split())


def test_no_text_becomes_markup() -> None:
    hostile = "a <b>b</b> **c** [d](http://d) `e` ![f](g)\n# h | i ~~j~~ &lt; \\*"
    tokens = [
        child
        for token in MARKDOWN.parse(plain(hostile))
        for child in [token, *(token.children or [])]
    ]
    assert {token.type for token in tokens} <= HARMLESS
    assert "".join(token.content for token in tokens if token.type != "inline") == (
        hostile.replace("\n", " ")
    )
