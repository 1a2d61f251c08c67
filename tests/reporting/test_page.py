"""What stands on the page besides figures and tables of results: tests read it as text."""

import base64
import html
import io
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from vgg16_transfer.hashing import file_md5
from vgg16_transfer.images.cards import EXAMPLES
from vgg16_transfer.reporting import data_cards
from vgg16_transfer.reporting.reading import ReadError

from .conftest import CARD, LONG

CLASSES = ("ant", "bee")
AXIS = {"samples_per_class": [2, 4]}


def text(page: Path | str) -> str:
    """What a reader sees: a cell is followed by a bar, and there are no pictures."""
    source = page if isinstance(page, str) else page.read_text(encoding="utf-8")
    source = re.sub(r"<style>.*?</style>|<img.*?>", "", source, flags=re.DOTALL)
    seen = html.unescape(re.sub(r"<[^>]*>", "", re.sub(r"</t[dh]>", " | ", source)))
    return seen.replace("\u00a0", " ")


def alternatives(page: str) -> list[str]:
    return [html.unescape(alt) for alt in re.findall(r'alt="([^"]*)"', page)]


def test_the_answer_holds_our_numbers_and_then_those_of_others(page) -> None:
    seen = text(page)
    assert "2 | 53.1 ± 4.4 | " in seen[: seen.index("accuracy, % at")]  # the key table
    assert "accuracy, % at | 2 | 4 | 8 | 15 | 16 | 30 | 45 | 60 | " in seen
    assert "samples | 53.1 ± 4.4 | 65.6 ± 4.4 | 78.1 ± 4.4 |  | 90.6 ± 4.4 |  |  |  | " in seen
    assert "Bo et al. 2013 (M-HMP) |  |  |  | 40.5 ± 0.4 |  | 48 ± 0.2 | 51.9 ± 0.2 | " in seen
    assert seen.index("samples | 53.1") < seen.index("Sohn et al. 2011 | ")
    assert "pictures per class, twice as many. 2 splits are too few for an interval." in seen
    assert "dotted: power law;" in seen


def test_every_published_number_says_where_it_is_printed(page) -> None:
    seen = text(page)
    assert "Bo, Ren and Fox 2013, as listed in Zeiler & Fergus 2013, Table 5" in seen
    assert "49 % at 1, 53.4 % at 2, 44.6 % at 4, 41.6 % at 8, 29.7 % at 16" in seen
    assert "134.5 min at 2, 161.5 min at 4" in seen
    assert "Sohn, Jung, Lee and Hero (2011). Efficient learning" in seen
    assert "Urban Tribes" not in seen


def test_fewer_classes_than_others_had_are_not_comparable(page) -> None:
    assert "photos has 2 of the 257 classes of Caltech-256" in text(page)


def test_a_dataset_without_published_numbers_says_so(write_page) -> None:
    seen = text(write_page(None, samples=AXIS))
    assert "No published numbers are shown, because datasets.photos.published_as names no" in seen
    assert "Sohn" not in seen


def test_numbers_of_an_unknown_count_of_pictures_are_lines(write_page) -> None:
    page = write_page("urban_tribes", samples=AXIS)
    assert "Wang & Cottrell 2015 (individuals + group, fine-tuned): 71 %." in alternatives(page)[0]
    assert "Kwak et al. 2013 | 46 % | " in text(page)


def test_temperatures_of_others_are_in_the_figure_of_a_study_of_temperatures(write_page) -> None:
    page = write_page("caltech256", soft={"layer": "predictions", "temperature": [1.0, 2.0]})
    drawn = [one for one in alternatives(page) if one.startswith("soft: ")]
    assert drawn[0].startswith("soft: Test accuracy against temperature.")
    assert len(drawn) == 4
    assert "From temperature 1 to 2 of the network's softmax" in text(page)
    assert "The answer" not in text(page)


def test_what_was_not_made_is_not_spoken_of(write_page) -> None:
    seen = text(write_page(None, samples=AXIS))
    for title in (
        "Data",
        "Training pictures, as the network sees them",
        "What the filters see",
        "What the heads look at",
        "Gradient check",
        "sources",
    ):
        assert title not in seen


def test_explained_pictures_have_the_text_of_their_captions(page) -> None:
    source = page.read_text(encoding="utf-8")
    assert "Where the head sees an ant" in alternatives(source)
    assert "<figcaption>Test pictures, and the training pictures that are nearest" in source


def test_captions_are_words_and_not_names_of_files(page) -> None:
    captions = re.findall("<figcaption>(.*?)</figcaption>", page.read_text(encoding="utf-8"))
    assert len(captions) > 10
    assert not [caption for caption in captions if " " not in caption and caption not in CLASSES]
    assert not [caption for caption in captions if re.match(r"nearest|block\d", caption)]
    assert "Set 1, convolution 1" in captions


def data_section(page: Path) -> str:
    source = page.read_text(encoding="utf-8")
    return source[source.index('<section id="data">') :].partition("</section>")[0]


def test_the_data_card_of_a_dataset_is_a_table(page) -> None:
    facts = {fact: told for fact, told in CARD.items() if fact != EXAMPLES}
    assert "".join(f"\n{fact} | {told} | " for fact, told in facts.items()) in text(
        data_section(page)
    )


def test_the_data_card_shows_training_pictures_of_each_class(page) -> None:
    shown = re.findall(
        r'src="data:image/webp;base64,([^"]*)" alt="Training pictures of (\w+) \(photos\)"',
        data_section(page),
    )
    assert [name for _, name in shown] == ["ant", "bee"]
    for (uri, _), strongest in zip(shown, (0, 1), strict=True):  # red, then green
        with Image.open(io.BytesIO(base64.b64decode(uri))) as picture:
            assert picture.size == (332, 80)
            colour = picture.convert("RGB").getpixel((300, 40))
        assert [channel > 200 for channel in colour].index(True) == strongest


def test_a_data_card_needs_no_pictures(full, tmp_path) -> None:
    shutil.copytree(full, tmp_path / "copy")
    splits, filters = (tmp_path / "copy" / name / "photos" for name in ("splits", "filters"))
    (filters / "samples.png").unlink()
    card = data_cards.read(splits, filters, "photos", 0)
    assert card is not None
    assert card.samples == []


def test_a_sheet_of_other_classes_is_an_error(full, tmp_path) -> None:
    shutil.copytree(full, tmp_path / "copy")
    splits, filters = (tmp_path / "copy" / name / "photos" for name in ("splits", "filters"))
    Image.new("RGB", (332, 80 * 3 + 4 * 2)).save(filters / "samples.png")
    with pytest.raises(
        ReadError, match=r"row for each of 2 classes.; run dvc repro filters@photos"
    ):
        data_cards.read(splits, filters, "photos", 0)


def cards(page: Path | str, kind: str) -> list[str]:
    """What is said of each card of a kind while it is closed."""
    source = page if isinstance(page, str) else page.read_text(encoding="utf-8")
    return [
        " ".join(text(summary).split())
        for summary in re.findall(
            rf'<details class="card {kind}"[^>]*>\s*<summary>(.*?)</summary>', source, re.DOTALL
        )
    ]


def test_each_study_is_a_card_with_its_question_and_its_number(page) -> None:
    first, second = cards(page, "study")
    assert first == (
        "samples How much do more training pictures per class help? +37.5 points (95 %: +37.5 to "
        "+37.5) from 2 to 16 training pictures per class"
    )
    assert second.startswith(f"{LONG} Which layer's features serve best? ")
    assert cards(page, "data") == ["photos"]


def test_the_first_study_is_open_and_the_others_are_not(page) -> None:
    opened = re.findall(r'<details class="card[^>]*>', page.read_text(encoding="utf-8"))
    assert opened[:2] == ['<details class="card study" open>', '<details class="card study">']
    assert not any("open" in one for one in opened[1:])


def test_a_study_of_one_point_is_a_sentence_and_no_chart_of_a_dot(write_page) -> None:
    page = write_page(None, one={"samples_per_class": 2, "seed": [0, 1, 2]})
    assert "With 2 training pictures per class, test accuracy is" in text(page)
    assert cards(page, "study")[0].startswith("one How far does one setting get?")
    assert not [one for one in alternatives(page) if "Test accuracy against" in one]
    assert not [one for one in alternatives(page) if "Differences" in one]


def test_the_exponent_of_a_law_is_raised(write_page) -> None:
    page = write_page(None, samples={"samples_per_class": [2, 4, 8], "seed": [0, 1, 2]})
    assert re.search(r"· n<sup>−\d\.\d+</sup>\)", page)
    assert "n^" not in page


def test_confusions_are_a_table_of_the_setting_with_most_pictures(page) -> None:
    seen = " ".join(text(page).split())
    assert "true ↓ taken for → | ant | bee | ant | 100 | | bee | 19 | 81 | " in seen
    assert "with training pictures per class 16, over all splits. Taken most often: bee for" in seen


def test_a_page_is_below_a_megabyte_and_a_half(page) -> None:
    assert page.stat().st_size < 1_500_000


def test_gradients_stand_beside_those_of_the_report(page) -> None:
    seen = text(page)
    assert "photos | ω_ij | block5_conv3 | 200 | 1.25 × 10−11 | 5.00 × 10−10 | " in seen
    assert "2017 report | ω_ij |  |  | 2.58 × 10−7 | 1.60 × 10−6 | " in seen
    assert "2017 report | ω_jk |  |  | 9.49 × 10−9 | 1.59 × 10−7 | " in seen


def test_every_number_has_its_lineage(page, full) -> None:
    seen = text(page)
    assert "DVC stage train@samples | " in seen
    for path in ("splits/photos/0.csv", "splits/photos/1.csv"):
        assert f"data/{path} | {file_md5(full / path)} | " in seen
    path = "results/samples/trials.csv"
    assert f"{path} | {file_md5(full / path)} | " in seen
    assert "samples_per_class=2,seed=0 | 0 | 50.0 |  | " in seen


def test_a_split_that_a_study_does_not_use_is_not_its_lineage(write_page) -> None:
    assert "data/splits/photos/2.csv" not in write_page(None, s={"seed": [0, 1]})
