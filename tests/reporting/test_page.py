"""What stands on the page besides figures and tables of results: tests read it as text."""

import base64
import html
import io
import re
import shutil
from pathlib import Path

from PIL import Image

from vgg16_transfer.hashing import file_md5
from vgg16_transfer.images.cards import EXAMPLES
from vgg16_transfer.reporting import data_cards

from .conftest import CARD

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
    assert len([one for one in alternatives(page) if one.startswith("soft: ")]) == 4
    assert "From temperature 1 to 2 of the network's softmax" in text(page)
    assert "The answer" not in text(page)


def test_what_was_not_made_is_not_spoken_of(write_page) -> None:
    seen = text(write_page(None, samples=AXIS))
    for title in (
        "Data",
        "What the filters see",
        "What the heads look at",
        "Gradient check",
        "sources",
    ):
        assert title not in seen


def test_explained_pictures_have_the_text_of_their_captions(page) -> None:
    source = page.read_text(encoding="utf-8")
    assert alternatives(source)[-1] == "Where the head sees an ant"
    assert "<figcaption>block1 conv1</figcaption>" in source


def test_the_data_card_of_a_dataset_is_a_table_with_examples(page) -> None:
    source = page.read_text(encoding="utf-8")
    section = source[source.index('<section id="data">') :].partition("</section>")[0]
    assert '<a href="#data">Data</a>' in source
    rows = "".join(f"\n{fact} | {told} | " for fact, told in CARD.items())
    assert rows in text(section)
    (alternative,) = alternatives(section)
    assert alternative == f"Training pictures of photos, side by side: {CARD[EXAMPLES]}"
    (uri,) = re.findall(r'src="data:image/webp;base64,([^"]*)"', section)
    with Image.open(io.BytesIO(base64.b64decode(uri))) as picture:
        assert picture.size == (652, 160)
        red, green, blue = picture.convert("RGB").getpixel((300, 80))
    assert red > 240
    assert max(green, blue) < 15


def test_examples_stand_in_the_data_card_alone(page) -> None:
    drawn = page.read_text(encoding="utf-8").partition('<section id="filters">')[2]
    assert len(re.findall("<img", drawn.partition("</section>")[0])) == 1  # block1_conv1


def test_a_data_card_needs_no_examples(full, tmp_path) -> None:
    shutil.copytree(full, tmp_path / "copy")
    splits, filters = (tmp_path / "copy" / name / "photos" for name in ("splits", "filters"))
    (filters / "examples.png").unlink()
    assert data_cards.read(splits, filters, "photos") == (CARD, None)


def test_gradients_stand_beside_those_of_the_report(page) -> None:
    seen = text(page)
    assert "photos | ω_ij | block5_conv3 | 200 | 1.250e-11 | 5.000e-10 | " in seen
    assert "2017 report | ω_ij |  |  | 2.575e-07 | 1.599e-06 | " in seen
    assert "2017 report | ω_jk |  |  | 9.493e-09 | 1.594e-07 | " in seen


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
