"""An xlsx file judged as an archive before anything of it is built: limits, encryption, damage, kinds of file."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import IO

from splora.errors import InputError

#: Bytes that all parts of a workbook may take unpacked, pictures among them.
MAX_UNPACKED = 64 * 2**20
#: XML tags of all parts, and of the parts that are no worksheets: what a reader's time and memory go by.
MAX_TAGS, MAX_OTHER_TAGS = 1_000_000, 150_000
#: Parts of the archive, and sheets that its table of contents may list.
MAX_PARTS, MAX_SHEETS = 2_000, 200

_OLE = bytes.fromhex("D0CF11E0A1B11AE1")
_STRICT = b"http://purl.oclc.org/ooxml/spreadsheetml/main"
_SHEET = re.compile(rb"<(?:\w+:)?sheet[\s/>]")
_WORKSHEET = re.compile(rb"<(?:\w+:)?worksheet[\s/>]")
_WORKBOOK = "xl/workbook.xml"
#: Blanks, and the marks that UTF-8 and UTF-16 begin with.
_BEFORE_MARKUP = b" \t\r\n\xef\xbb\xbf\xff\xfe"


def check_signature(path: Path, file: IO[bytes]) -> None:
    """Refuse what is no archive.

    Raises:
        InputError: another kind of file, or one that is protected by a password.
    """
    head = file.read(len(_OLE))
    if head == _OLE:
        if "EncryptedPackage".encode("utf-16-le") in head + file.read(MAX_UNPACKED):
            raise InputError(f"{path}: is protected by a password; save a copy without one.")
        raise InputError(f"{path}: is an old .xls workbook; save it as .xlsx.")
    if not head.startswith(b"PK"):
        raise InputError(f"{path}: is not an xlsx workbook.")


def check_archive(path: Path, file: IO[bytes]) -> None:
    """Unpack every part once, a part at a time, and judge its size and kind.

    Raises:
        InputError: a limit is passed, a part is damaged, encrypted or compressed in an unknown way, or the archive
            is another kind of workbook.
        zipfile.BadZipFile: it is no whole archive.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        _check_sizes(path, entries)
        _check_kind(path, archive, {entry.filename for entry in entries})
        tags = other_tags = sheets = 0
        for entry in entries:
            # Without zero bytes, UTF-16 reads as the ASCII that markup consists of.
            data = _unpacked(path, archive, entry).replace(b"\0", b"")
            if b"<!DOCTYPE" in data and entry.filename.endswith((".xml", ".rels")):
                raise InputError(f"{path}: {entry.filename} declares a document type, which no workbook needs.")
            if entry.filename == _WORKBOOK and _STRICT in data:
                raise InputError(
                    f"{path}: is a 'Strict Open XML Spreadsheet', which is not read; save it in Excel as "
                    "'Excel Workbook (*.xlsx)'."
                )
            data = data.lstrip(_BEFORE_MARKUP)
            count = data.count(b"<") if b"<" in data[:4096] else 0
            sheets += len(_SHEET.findall(data))
            tags += count
            other_tags += 0 if _WORKSHEET.search(data[:4096]) else count
        for what, value, limit in (
            ("cells and other tags", tags, MAX_TAGS),
            ("texts, styles and other tags beside its cells", other_tags, MAX_OTHER_TAGS),
            ("sheets", sheets, MAX_SHEETS),
        ):
            if value > limit:
                raise InputError(f"{path}: holds {value:,} {what}; at most {limit:,} are read.")


def _check_sizes(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_PARTS:
        raise InputError(f"{path}: consists of {len(entries):,} parts; at most {MAX_PARTS:,} are read.")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MAX_UNPACKED:
        raise InputError(
            f"{path}: takes {unpacked / 2**20:,.0f} MiB unpacked; at most {MAX_UNPACKED / 2**20:.0f} MiB are read."
        )
    for entry in entries:
        name = entry.filename[:100]
        if entry.flag_bits & 1:
            raise InputError(f"{path}: its part {name} is encrypted; save a copy without a password.")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(
                f"{path}: its part {name} is compressed in a way (number {entry.compress_type}) that no workbook uses; "
                "open and save it again in Excel."
            )


def _check_kind(path: Path, archive: zipfile.ZipFile, names: set[str]) -> None:
    if "xl/workbook.bin" in names:
        raise InputError(f"{path}: is a binary workbook (.xlsb); save it as .xlsx.")
    if "mimetype" in names and b"opendocument" in archive.read("mimetype")[:100]:
        raise InputError(f"{path}: is an OpenDocument file; save it as .xlsx.")


def _unpacked(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A part's bytes, of which zipfile yields no more than the directory announces."""
    try:
        with archive.open(entry) as part:  # which unpacks no more than is asked for
            return part.read(entry.file_size + 1)
    except (zlib.error, zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        raise InputError(
            f"{path}: is damaged, its part {entry.filename[:100]} cannot be unpacked ({str(error)[:100]}); open and "
            "save it again in Excel."
        ) from None
