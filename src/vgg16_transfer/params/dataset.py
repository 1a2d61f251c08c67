"""An entry of the section ``datasets``, with its defaults. docs/params.md has the descriptions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vgg16_transfer.params.section import Section

Layout = Literal["class_folders", "split_folders", "csv", "caltech256", "urban_tribes"]


class Split(Section):
    """How a dataset's pictures are split into training and test."""

    seeds: list[int] = Field(
        default=list(range(10)),
        min_length=1,
        description="one manifest is made for each; test sets of several seeds have as few "
        "pictures in common as possible",
    )
    train_per_class: int = Field(default=16, ge=1, description="the most a head can be trained on")
    test_per_class: int = Field(
        default=8,
        ge=1,
        description="fixed per seed; a test set that the source gives is used whole",
    )
    validation_per_class: int = Field(
        default=0,
        ge=0,
        description="pictures to choose settings with, so that test stays unseen; a validation set "
        "that the source gives beside a test set is used whole",
    )
    group: str | None = Field(
        default=None,
        description="regular expression with one group, searched in a picture's path: pictures of "
        "a class for which the group matches the same text stay on one side of the split",
    )
    near_duplicates: Literal["list", "one_side"] = Field(
        default="list",
        description="pictures that are almost the same: `list` those on different sides of a "
        "split, or keep those of a class on `one_side`",
    )


class Dataset(Section):
    """Pictures in classes, and how they are read, split and cached."""

    source: str | None = Field(
        default=None,
        min_length=1,
        description="path of a .tar, .tar.gz, .zip or folder, or its http(s) address; "
        "may be left out for a dataset that has a known address (caltech256)",
    )
    md5: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{32}$",
        description="of the archive; required for an address, not for a folder",
    )
    origin: str | None = Field(
        default=None,
        description="where the pictures come from: a sentence or an address, for the data card",
    )
    licence: str | None = Field(
        default=None,
        description="what may be done with the pictures: a sentence, for the data card",
    )
    layout: Layout = Field(
        default="class_folders",
        description="how a picture's class is read from where it lies: `class_folders`, "
        "`split_folders`, `csv`, `caltech256` or `urban_tribes` ([datasets.md](datasets.md))",
    )
    encoding: str | None = Field(
        default=None,
        min_length=1,
        description="of the names in an old .zip or .tar that does not say it, such as `cp932`",
    )
    classes: list[str] = Field(
        default=[], description="classes to use, by name; all that the source has, if empty"
    )
    leave_out: list[str] = Field(default=[], description="classes to leave out, by name")
    remarks: list[str] = Field(
        default=[],
        description="what a reader must know about the pictures before quoting a number: sentences "
        "for the page and the data card",
    )
    published_as: str | None = Field(
        default=None,
        description="the known dataset that this is, such as `caltech256`, whose published numbers "
        "the page shows; [datasets.md](datasets.md#published-numbers) lists those that are known",
    )
    split: Split = Field(default=Split(), description="how the pictures are split")
    layers: list[str] = Field(
        min_length=1,
        description="layers whose activations are stored for heads to be trained on; "
        "[networks.md](networks.md) lists those of each network",
    )
