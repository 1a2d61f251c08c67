import pytest
from ruamel.yaml import YAML

from vgg16_transfer.params import ParamsError
from vgg16_transfer.params.adding import add

BEFORE = """\
# why this file is as it is
backbone: {weights: random-conv, image_size: 32}  # tiny

datasets:
    ants:   # four columns here
        source: "ants.tar"
        layers: [block5_pool]
        # the last word about ants

# studies of ants
studies:
  few: {dataset: ants}
  # none other yet
"""
PETS = {"source": "~/pets", "layers": ["block5_pool"], "split": {"train_per_class": 16}}
ENTRIES = {"datasets": {"pets": PETS}, "studies": {"pets-few": {"dataset": "pets", "seed": [0, 1]}}}


BRACES = """\
{studies: {few: {dataset: ants}}, backbone: {weights: random-conv},
 datasets: {ants: {source: ants.tar, layers: [block5_pool]}}}
"""


def load(text: str):
    return YAML(typ="safe", pure=True).load(text)


def test_entries_come_last_in_their_sections_and_nothing_else_changes():
    assert add(BEFORE, ENTRIES) == (
        BEFORE.replace(
            "about ants\n",
            "about ants\n"
            "    pets:\n"
            "      source: ~/pets\n"
            "      layers: [block5_pool]\n"
            "      split: {train_per_class: 16}\n",
        )
        + "  pets-few:\n    dataset: pets\n    seed: [0, 1]\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        BEFORE.rstrip("\n"),
        BEFORE.replace("\n", "\r\n"),
        BEFORE.partition("  # none")[0].rstrip(),
        BRACES,
        BEFORE.replace("    ants:", "    ants: &ants").replace("few:", "few: &few"),
        BEFORE + "\n\n# the end\n",
        BEFORE.replace('"ants.tar"', "|-\n          ants.tar"),
    ],
    ids=["no last newline", "Windows", "no comment", "braces", "anchors", "comment", "block text"],
)
def test_every_style_keeps_its_lines(text):
    after = add(text, ENTRIES)
    before = load(text)
    assert load(after) == before | {key: before[key] | ENTRIES[key] for key in ENTRIES}
    rest = iter(after)
    assert all(character in rest for character in text)  # nothing of the old text is gone
    assert ("\r\n" in after) == ("\r\n" in text)
    assert text.count("\n") == text.count("\r\n") or after.count("\r") == 0


def test_text_that_looks_like_another_type_stays_text():
    for source in ("~", "1e5", "null", "no", "a: b", "#x", "'", "猫 \N{SNOWMAN}", "2026-11-26"):
        entries = {"datasets": {"pets": PETS | {"source": source}}}
        assert load(add(BEFORE, entries))["datasets"]["pets"]["source"] == source


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ParamsError) as caught:
        add(BEFORE, {"datasets": {"ants": PETS}, "studies": {"few": {"dataset": "ants"}}})
    assert caught.value.mistakes == [
        "datasets.ants: exists already; choose another name",
        "studies.few: exists already; choose another name",
    ]


def test_what_would_be_a_mistake_is_not_added():
    with pytest.raises(ParamsError, match=r"datasets\.Pets: a name is lower-case"):
        add(BEFORE, {"datasets": {"Pets": PETS}})
    with pytest.raises(ParamsError, match=r"no dataset|dataset 'nobody'|nobody"):
        add(BEFORE, {"studies": {"none": {"dataset": "nobody"}}})
