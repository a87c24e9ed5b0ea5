"""`metrics.csv` of a resumed run: damaged lines are left out, the others stay, however it was saved."""

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
    assert (tmp_path / "metrics.damaged.csv").exists() == (damaged > 0)


TABLE = "step,f1,loss\n1,,0.5\n2,70.25,0.25\n"
WAYS = {
    "as written": TABLE.encode(),
    "CSV UTF-8": b"\xef\xbb\xbf" + TABLE.encode(),
    "semicolons": TABLE.replace(",", ";").replace(".", ",").encode("utf-8-sig"),
    "Unicode text": TABLE.replace(",", "\t").encode("utf-16"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_table_that_excel_saved_is_gone_on_from(way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.csv").write_bytes(WAYS[way])
    ResumableCSVLogger(str(tmp_path)).go_on(3, {"f1": 71.0})
    assert (tmp_path / "metrics.csv").read_text(encoding="utf-8") == TABLE + "3,71.0,\n"
    assert capsys.readouterr().err == ""
