"""Sealed rows open with their key and order alone."""

import pytest

from streams.worker.sealing import Seal, Unsealable, new_data_key


def test_a_row_opens_with_its_key_and_order_alone() -> None:
    key = new_data_key()
    seal = Seal(key, "shop:1")
    rows = [b"", b"{}", b"x" * 100_000]
    sealed = [seal.close(row) for row in rows]
    assert [Seal(key, "shop:1").open(text) for text in sealed] == rows
    assert len({text[:16] for text in sealed}) == len(rows), "every row has another nonce"
    for other in (Seal(key, "shop:2"), Seal(new_data_key(), "shop:1")):
        with pytest.raises(Unsealable, match="does not open with its key"):
            other.open(sealed[1])


@pytest.mark.parametrize("text", ["", "AAAA", "not Base64!", "A" * 40])
def test_other_texts_do_not_open(text: str) -> None:
    with pytest.raises(Unsealable):
        Seal(new_data_key(), "shop:1").open(text)


def test_a_changed_row_does_not_open() -> None:
    seal = Seal(new_data_key(), "shop:1")
    sealed = seal.close(b"paid: no")
    flipped = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]
    with pytest.raises(Unsealable):
        seal.open(flipped)
