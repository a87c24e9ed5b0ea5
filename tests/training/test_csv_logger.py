"""`metrics.csv` of a resumed run: damaged lines are left out, the others stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from splora.training.csv_logger import ResumableCSVLogger


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"step,loss\n1,2.0\n2,1.0\n", [1, 2]),
        *((b"step,loss\n1,2.0\n" + line + b"\n2,1.0\n", [1, 2]) for line in (b"x,1", b"1.5,1", b"\xff,1", b"1", b",1")),
        *((b"step,loss\n1,2.0\n" + line + b"\n2,1.0\n", [1, 2]) for line in (b"1,\xff", b'1,"', b"1,2,3", b"\0,1")),
        (b"loss\n2.0\n", []),
        (b"\xff\xfe", []),
        (b"", []),
    ],
)
def test_a_damaged_file_is_gone_on_from(
    content: bytes, kept: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    logger = ResumableCSVLogger(str(tmp_path))
    logger.go_on(5, {"loss": 0.5})
    lines = (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [int(line.split(",")[0]) for line in lines] == [*kept, 5]
    damaged = max(0, content.count(b"\n") - 1) - len(kept)
    assert ("damaged lines are left out" in capsys.readouterr().err) == (damaged > 0)
