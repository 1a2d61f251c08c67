"""What a package logs while it is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = """
import os, sys
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written\\n")
os.write(2, b"I0000 00:00:1795.073516   10356 port.cc:153] oneDNN custom operations are on.\\n")
os.write(2, b"E0000 00:00:1795.073516   10356 cuda_dnn.cc:1] no such device\\n")
print("a deprecation", file=sys.stderr)
value = 3
"""

SCRIPT = """
import sys
from vgg16_transfer.quiet import silence
silence("noisy")
import noisy, noisy.inner
print(noisy.value, noisy.__spec__.name, noisy.inner.value)
print("I0000 afterwards", file=sys.stderr)
"""


def test_log_lines_are_left_out_and_errors_are_not(tmp_path: Path) -> None:
    (tmp_path / "noisy").mkdir()
    (tmp_path / "noisy" / "__init__.py").write_text(PACKAGE, encoding="utf-8")
    (tmp_path / "noisy" / "inner.py").write_text("value = 4", encoding="utf-8")
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout == "3 noisy 4\n"
    assert run.stderr.splitlines() == [
        "E0000 00:00:1795.073516   10356 cuda_dnn.cc:1] no such device",
        "a deprecation",
        "I0000 afterwards",
    ]


def test_an_import_that_fails_shows_what_it_logged(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(PACKAGE + "\n1 / 0", encoding="utf-8")
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "E0000" in run.stderr
    assert "ZeroDivisionError" in run.stderr


def test_packages_are_hidden_from_an_import_and_there_afterwards(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("value = 3", encoding="utf-8")
    (tmp_path / "used.py").write_text("value = 4", encoding="utf-8")
    (tmp_path / "noisy.py").write_text(
        "found = []\n"
        "for name in ('slow', 'used'):\n"
        "    try:\n"
        "        found.append(__import__(name).__name__)\n"
        "    except ImportError:\n"
        "        pass\n",
        encoding="utf-8",
    )
    program = (
        "import used\n"
        "from vgg16_transfer.quiet import silence\n"
        "silence('noisy', ['slow', 'used'])\n"
        "import noisy, slow\n"
        "print(noisy.found, slow.value, used.value)\n"
    )
    (tmp_path / "script.py").write_text(program, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout == "['used'] 3 4\n"


def test_a_command_imports_keras_without_what_no_command_uses() -> None:
    program = (
        "import sys\n"
        "from vgg16_transfer.quiet import silence_tensorflow\n"
        "silence_tensorflow(fast=True)\n"
        "import keras\n"
        "print([name for name in ('jax', 'sklearn', 'matplotlib.pyplot') if name in sys.modules])\n"
        "import sklearn, matplotlib.pyplot\n"
        "print(sklearn.__name__, matplotlib.pyplot.__name__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\nsklearn matplotlib.pyplot\n"


@pytest.mark.parametrize(("given", "used"), [(None, "0"), ("1", "1")])
@pytest.mark.parametrize("option", ["--quiet", "--verbose"])
def test_float32_is_kept_on_a_gpu_whatever_is_printed(
    option: str, given: str | None, used: str, tmp_path: Path
) -> None:
    program = (
        "import os, sys\n"
        "from vgg16_transfer.cli import main\n"
        f"sys.argv = ['vgg16-transfer', '{option}', 'results']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print(os.environ['NVIDIA_TF32_OVERRIDE'])\n"
    )
    clean = {key: value for key, value in os.environ.items() if key != "NVIDIA_TF32_OVERRIDE"}
    changed = clean | ({"NVIDIA_TF32_OVERRIDE": given} if given else {})
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=changed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.splitlines()[-1:] == [used], run.stderr
