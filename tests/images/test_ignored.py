import pytest

from vgg16_transfer.images.ignored import LITTER, passed_by


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ants/._1.jpg", "is hidden: ._1.jpg"),
        (".ipynb_checkpoints/1-checkpoint.jpg", "is hidden: .ipynb_checkpoints"),
        ("ants/.thumbnails/normal/1.png", "is hidden: .thumbnails"),
        ("__MACOSX/ants/1.jpg", "is made by the system: __MACOSX"),
        ("ants/@eaDir/1.jpg/thumb.jpg", "is made by the system: @eaDir"),
        ("#recycle/1.jpg", "is made by the system: #recycle"),
        ("$Recycle.Bin/1.jpg", "is made by the system: $Recycle.Bin"),
        ("System Volume Information/x", "is made by the system: System Volume Information"),
        ("lost+found/1.jpg", "is made by the system: lost+found"),
        ("ants/THUMBS.DB", "is made by the system: THUMBS.DB"),
        ("ants/Desktop.ini", "is made by the system: Desktop.ini"),
        ("ants/Icon\r", "is made by the system: Icon"),
    ],
)
def test_what_systems_leave_behind_is_passed_by_with_the_reason(name: str, reason: str) -> None:
    assert passed_by(name) == reason


@pytest.mark.parametrize(
    "name",
    [
        "ants/1.jpg",
        "./ants/1.jpg",
        "ants/1",
        "thumbs/1.jpg",
        "a.b/c.",
        "ants/a copy.jfif",
        "../1.jpg",
    ],
)
def test_everything_else_is_read(name: str) -> None:
    assert passed_by(name) is None


def test_names_are_compared_in_lower_case() -> None:
    assert {name.lower() for name in LITTER} == LITTER
