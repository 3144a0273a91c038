"""The head of a data set's README.md, which a stranger has written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pruning_core.errors import DatasetInvalid
from pruning_core.files.hub import described_configs

LINES = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]" for number in range(1, 12)
]
HEADS = {
    "a list of lists of lists": "\n".join([*LINES, "configs: [{config_name: x, data_files: *a11}]"]),
    "a list in itself": "configs: [{config_name: x, data_files: &a [*a]}]",
    "lines without end": "\n" * 5_000_000,
    "a path that leads out": "configs: [{config_name: x, data_files: [{split: train, path: [a.csv, ../b.csv]}]}]",
    "a number": "configs: [{config_name: x, data_files: [1]}]",
}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_that_grows_or_leads_out_is_refused_at_once(head: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\n{HEADS[head]}\n---\n")
    with pytest.raises(DatasetInvalid, match=r"README\.md"):
        described_configs(tmp_path)


def test_an_honest_head_is_read(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: x\n  data_files:\n  - {split: train, path: [a/*.csv, b.csv]}\n"
        "  - {split: test, path: c.csv}\n---\n"
    )
    assert len(described_configs(tmp_path)) == 1
