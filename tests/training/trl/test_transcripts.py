"""The texts of tokens are the text, cut where tokens end."""

import pytest

from ctpo.training.trl.transcripts import texts

WORDS = [" So", " it", "'s", " so"]


def of_bytes(ids):
    return bytes(ids).decode("utf-8", "replace")


def of_words(ids):
    """As some tokenizers do, without the space that a text begins with."""
    return "".join(WORDS[i] for i in ids).removeprefix(" ")


@pytest.mark.parametrize(
    ("decode", "ids", "pieces"),
    [
        (of_bytes, "aé🙂 é".encode(), ["a", "", "é", "", "", "", "🙂", " ", "", "é"]),
        (of_bytes, b"a\xc3", ["a", "\N{REPLACEMENT CHARACTER}"]),
        (of_words, [0, 1, 2, 3], ["So", " it", "'s", " so"]),
        (of_words, [], []),
    ],
)
def test_a_token_has_its_own_text(decode, ids, pieces):
    assert texts(list(ids), decode) == pieces
    assert "".join(pieces) == decode(ids)
