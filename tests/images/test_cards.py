"""The data card says what independent counts say, and becomes no markup."""

import functools
import io
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

from vgg16_transfer.images.cards import (
    EXAMPLES,
    NAMED,
    card_path,
    examples,
    facts_of,
    read_facts,
    samples,
    write_card,
)
from vgg16_transfer.images.manifests import COLUMNS, read_manifests
from vgg16_transfer.images.splits import write_splits
from vgg16_transfer.images.survey import Picture, Survey
from vgg16_transfer.params import Dataset, Split

from .conftest import jpeg, photo, write_folder, write_tar

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
SPLIT = Split(seeds=[2, 0, 1], train_per_class=3, test_per_class=2)
NEAR_SEEDS = {"ants": 0, "eels": 400}
PER_CLASS = {"ants": 7, "bees": 9, "cats": 8, "dogs": 8, "eels": 12}


def png(seed: int, width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    photo(seed).resize((width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@functools.cache
def pictures() -> dict[str, bytes]:
    """Photos of different sizes, some of them near-duplicates, and files that are no pictures."""
    files = {
        f"p/{name}/{number}.png": png(100 * label + number, 20 + 7 * number, 90 - 5 * number)
        for label, (name, count) in enumerate(PER_CLASS.items())
        for number in range(count)
    }
    near = {f"p/{name}/near.jpg": jpeg(photo(seed), 70) for name, seed in NEAR_SEEDS.items()}
    junk = {"p/ants/.hidden": b"x", "p/bees/.hidden": b"x", "p/cats/page.png": b"<html>"}
    return files | near | junk


def dataset(**changes: Any) -> Dataset:
    return Dataset(**({"split": SPLIT, "layers": ["block5_pool"]} | changes))


def written(source: Path, out: Path, **changes: Any) -> dict[str, str]:
    """The facts of the card that the stage writes."""
    write_splits(out.name, dataset(**changes), source, out)
    return read_facts(card_path(out).read_text(encoding="utf-8"))


@pytest.fixture
def source(tmp_path) -> Path:
    return write_tar(tmp_path / "pictures.tar", pictures())


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "splits" / "pets"


def made_up(classes: int, kinds: int) -> Survey:
    """A source with one picture of each class, and one file left out for each kind of reason."""
    found = [Picture(f"{i}", f"c{i:03}", "", None, b"", (20, 30)) for i in range(classes)]
    left_out = pd.DataFrame({"kind": [f"k{i:03}" for i in range(kinds)]})
    return Survey(found, left_out, frozenset(), (), "")


def facts(manifests: dict[int, pd.DataFrame], surveyed: Survey | None = None) -> dict[str, str]:
    """The facts of made-up splits."""
    pairs = pd.DataFrame({"seed": [0, 0, 2]})
    return facts_of(dataset(), surveyed or made_up(2, 0), manifests, pairs)


def manifest(test: str, validation: str = "") -> pd.DataFrame:
    """A split of pictures of one class, each named by a letter."""
    rows = [
        (path, 0, "ants", "", role, rank)
        for role, paths in (("test", test), ("validation", validation), ("train", "t"))
        for rank, path in enumerate(paths)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_pictures_are_counted_as_they_lie_in_the_folders(source, out) -> None:
    card = written(source, out)
    counts = sorted((PER_CLASS | {"ants": 8, "eels": 13}).values())  # with the near-duplicates
    assert card["usable pictures"] == f"{sum(counts)}"
    assert card["classes"] == "5: ants, bees, cats, dogs, eels"
    assert card["pictures of a class"] == f"{counts[0]} to {counts[-1]}, median {counts[2]}"


def test_sizes_are_those_that_pillow_finds_in_the_files(source, out) -> None:
    sizes = []
    for content in pictures().values():
        try:
            sizes.append(Image.open(io.BytesIO(content)).size)
        except OSError:  # no picture
            continue
    areas = sorted(width * height for width, height in sizes)
    text = written(source, out)["width × height, pixels"]
    shown = [part.split()[1::2] for part in text.split(", ")]
    assert [part.split()[0] for part in text.split(", ")] == ["smallest", "median", "largest"]
    assert all((int(width), int(height)) in sizes for width, height in shown)
    expected = [areas[0], np.percentile(areas, 50, method="lower"), areas[-1]]
    assert [int(width) * int(height) for width, height in shown] == expected


def test_files_that_were_left_out_are_counted_by_kind(source, out) -> None:
    assert written(source, out)["files left out"] == "3: is hidden (2), is no picture (1)"


def test_a_source_of_which_all_is_used_says_so(tmp_path, out) -> None:
    whole = {path: content for path, content in pictures().items() if content[1:4] == b"PNG"}
    assert written(write_folder(tmp_path / "whole", whole), out)["files left out"] == "none"


def test_splits_are_counted_as_the_manifests_say(source, out) -> None:
    card = written(source, out)
    tests = [
        {row["path"] for row in rows.to_dict("records") if row["role"] == "test"}
        for rows in read_manifests(out)
    ]
    assert len(tests) == 3
    shared = [len(a & b) / 10 for a, b in itertools.combinations(tests, 2)]
    assert card["splits"] == "3, of the seeds 2, 0, 1"
    assert card["training pictures of a split"] == "15, 3 of each class"
    assert card["validation pictures of a split"] == "none"
    assert card["test pictures of a split"] == "10, 2 of each class"
    assert card["different test pictures of all splits"] == (
        f"{len(set.union(*tests))}; two splits share {100 * np.mean(shared):.1f} % of their test "
        "pictures, on average"
    )


def test_near_duplicates_are_counted_as_their_list_says(source, out) -> None:
    split = SPLIT.model_copy(update={"train_per_class": 5})  # makes it likely that both are used
    card = written(source, out, split=split)
    rows = (out / "near_duplicates.csv").read_text(encoding="utf-8").splitlines()[1:]
    pairs = Counter(row.split(",")[0] for row in rows)
    assert pairs.total() > 0
    assert card["pairs of near-duplicates across a split"] == (
        f"split 2: {pairs['2']}, split 0: {pairs['0']}, split 1: {pairs['1']}"
    )


def test_examples_are_training_pictures_of_different_classes_of_the_first_split(
    source, out
) -> None:
    listed = written(source, out)[EXAMPLES].split(", ")
    rows = pd.read_csv(out / "2.csv")  # 2 is the first seed
    first = rows[(rows["role"] == "train") & (rows["rank"] == 0)].set_index("class_name")["path"]
    assert listed == [f"{first[name]} ({name})" for name in ("ants", "bees", "cats", "dogs")]


def test_examples_lie_evenly_apart_in_the_order_of_the_classes() -> None:
    rows = [(f"{label}.png", label, str(label), "", "train", 0) for label in range(257)]
    rows += [("a.png", 0, "0", "", "train", 1), ("b.png", 1, "1", "", "test", 0)]
    chosen = examples(pd.DataFrame(rows[::-1], columns=COLUMNS))
    assert chosen["label"].tolist() == [0, 64, 128, 192]
    assert examples(pd.DataFrame(rows[:2], columns=COLUMNS))["label"].tolist() == [0, 1]


def test_samples_are_the_first_training_pictures_of_each_class() -> None:
    rows = [
        (f"{n}_{rank}.jpg", n, f"c{n}", "", role, rank)
        for n in (1, 0)
        for role in ("test", "train")
        for rank in (2, 0, 1)
    ]
    chosen = samples(pd.DataFrame(rows, columns=COLUMNS), count=2)
    assert chosen["path"].tolist() == ["0_0.jpg", "0_1.jpg", "1_0.jpg", "1_1.jpg"]
    assert set(chosen["role"]) == {"train"}


@pytest.mark.parametrize(("classes", "shown"), [(5, [0, 1, 2, 3, 4]), (2, [0, 3]), (1, [0])])
def test_samples_of_many_classes_lie_evenly_apart(classes: int, shown: list[int]) -> None:
    rows = [(f"{n}.jpg", n, f"c{n}", "", "train", 0) for n in range(5)]
    chosen = samples(pd.DataFrame(rows, columns=COLUMNS), classes=classes)
    assert chosen["label"].tolist() == shown


def test_the_overlap_is_the_mean_of_all_pairs_of_splits() -> None:
    manifests = {
        0: manifest("abcd"),
        1: manifest("abef"),  # half of the first
        2: manifest("ab"),  # 4 of 6, of both
    }
    expected = 100 * (2 / 4 + 4 / 6 + 4 / 6) / 3
    assert facts(manifests)["different test pictures of all splits"] == (
        f"6; two splits share {expected:.1f} % of their test pictures, on average"
    )


def test_one_split_overlaps_with_none() -> None:
    assert facts({0: manifest("ab")})["different test pictures of all splits"] == "2"


def test_splits_of_different_sizes_are_ranges() -> None:
    manifests = {
        0: manifest("a", validation="bc"),
        7: manifest("ade"),
    }
    card = facts(manifests)
    assert card["test pictures of a split"] == "1 to 3, 1 to 3 of each class"
    assert card["validation pictures of a split"] == "0 to 2, 0 to 2 of each class"
    assert card["training pictures of a split"] == "1, 1 of each class"
    assert card["pairs of near-duplicates across a split"] == "split 0: 2, split 7: 0"


def test_many_classes_and_reasons_are_counted() -> None:
    card = facts({0: manifest("a")}, made_up(NAMED + 5, NAMED + 2))
    assert card["classes"].endswith(f"c{NAMED - 1:03} and 5 more")
    assert card["files left out"].endswith(f"k{NAMED - 1:03} (1) and 2 more reasons")


def test_what_is_stated_is_that_of_params_yaml(source, out) -> None:
    stated = {"origin": "https://example.org/pets", "licence": "CC BY 4.0\n"}
    card = written(source, out, **stated, remarks=["All are pets.", "Some sleep."])
    assert (card["origin"], card["licence"]) == ("https://example.org/pets", "CC BY 4.0")
    assert card["remarks"] == "All are pets. Some sleep."
    card = written(source, out)
    assert [card[key] for key in ("origin", "licence")] == ["not stated"] * 2
    assert card["remarks"] == "none"


def test_another_licence_changes_the_card_alone(source, out) -> None:
    written(source, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    written(source, out, licence="CC BY 4.0")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_same_pictures_give_the_same_card_whatever_they_lie_in(tmp_path, source, out) -> None:
    written(source, out)
    card = card_path(out).read_bytes()
    written(write_folder(tmp_path / "folder", dict(reversed(pictures().items()))), out)
    assert card_path(out).read_bytes() == card


TEXTS = st.text().filter(str.strip)


@given(texts=st.dictionaries(TEXTS, TEXTS), name=TEXTS)
def test_facts_come_back_as_they_were_written(tmp_path_factory, texts, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / "a.card.md"
    given_facts = {" ".join(key.split()): " ".join(text.split()) for key, text in texts.items()}
    write_card(path, name, given_facts | {EXAMPLES: "a.png (ants)"})
    result = read_facts(path.read_text(encoding="utf-8"))
    assert result == given_facts | {EXAMPLES: "a.png (ants)"}


def test_no_name_and_no_text_of_a_user_is_markup_in_the_card(tmp_path) -> None:
    hostile = "[x](javascript:alert(1)) <script>alert(1)</script> a|b ` **b**\n\n# h\n- i ~~s~~"
    kinds = []
    for text in ("plain", hostile):
        write_card(tmp_path / "card.md", text, {text: text, EXAMPLES: text})
        card = (tmp_path / "card.md").read_text(encoding="utf-8")
        tokens = MARKDOWN.parse(card)
        kinds.append([token.type for token in tokens])
        inline = {child.type for token in tokens for child in token.children or []}
        assert inline <= {"text", "text_special"}
    assert kinds[0] == kinds[1]
    assert kinds[0].count("tr_open") == 3  # an empty heading and two facts


@pytest.mark.parametrize(
    "text", ["", "# Changes\n", "# Data card: a\n\n| | |\n|---|---|\n| a | b |"]
)
def test_a_text_that_is_no_whole_card_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no data card, or a part of one"):
        read_facts(text)
