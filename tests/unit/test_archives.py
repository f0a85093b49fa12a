"""Archives from strangers: what is good is unpacked, all else is refused and leaves nothing."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from mlaas.archives import Limits, check_gzip, unpack
from mlaas.errors import InvalidRequest, TooLarge

LIMITS = Limits(bytes=4 * 1024**2, files=20)


def zipped(place: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return place


def tarred(place: Path, files: dict[str, bytes], mode: str = "w:gz", **more: tarfile.TarInfo) -> Path:
    with tarfile.open(place, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in more.values():
            archive.addfile(info)
    return place


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(("name", "mode"), [("a.zip", ""), ("a.tar", "w:"), ("a.tar.gz", "w:gz"), ("A.TGZ", "w:gz")])
def test_files_are_unpacked_and_a_folder_around_them_all_is_left_out(tmp_path: Path, name: str, mode: str) -> None:
    files = {"model/config.json": b"{}", "model/onnx/model.onnx": b"graph" * 1000}
    archive = tarred(tmp_path / name, files, mode) if mode else zipped(tmp_path / name, files)
    unpack(archive, tmp_path / "out", LIMITS)
    assert {str(one.relative_to(tmp_path / "out")): one.read_bytes() for one in (tmp_path / "out").rglob("*.*")} == {
        "config.json": b"{}",
        "onnx/model.onnx": b"graph" * 1000,
    }


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a//b", "a\\..\\evil", "con\ntrol", "x" * 300])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    for archive in (zipped(tmp_path / "a.zip", {"good": b"", name: b"x"}), tarred(tmp_path / "a.tar", {"good": b"", name: b"x"}, "w:")):
        with pytest.raises(InvalidRequest):
            unpack(archive, tmp_path / "in" / "out", LIMITS)
        assert os.listdir(tmp_path / "in") == []
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("kind", "target"), [(tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "good"), (tarfile.FIFOTYPE, ""), (tarfile.CHRTYPE, "")]
)
def test_links_and_special_files_are_refused(tmp_path: Path, kind: bytes, target: str) -> None:
    archive = tarred(tmp_path / "a.tar.gz", {"good": b"x"}, bad=link("bad", kind, target))
    with pytest.raises(InvalidRequest, match="link or a special file"):
        unpack(archive, tmp_path / "out", LIMITS)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("bad")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InvalidRequest, match="link or a special file"):
        unpack(tmp_path / "a.zip", tmp_path / "out", LIMITS)


def test_a_bomb_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    zeros = b"\0" * (6 * 1024**2)
    for archive in (zipped(tmp_path / "a.zip", {"x": zeros}), tarred(tmp_path / "a.tgz", {"x": zeros})):
        assert archive.stat().st_size < 100_000
        with pytest.raises(TooLarge):
            unpack(archive, tmp_path / "out", LIMITS)
        assert sorted(one.name for one in tmp_path.iterdir()) == ["a.tgz", "a.zip"]


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"x": b"\0" * (6 * 1024**2)})
    size = (6 * 1024**2).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(InvalidRequest):
        unpack(archive, tmp_path / "out", LIMITS)


def test_an_extended_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"comment": "y" * (3 * 1024**2)}
    with tarfile.open(tmp_path / "a.tgz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    with pytest.raises(TooLarge):
        unpack(tmp_path / "a.tgz", tmp_path / "out", LIMITS)


def test_more_files_than_allowed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="20 files"):
        unpack(zipped(tmp_path / "a.zip", {f"f{number}": b"" for number in range(21)}), tmp_path / "out", LIMITS)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00broken", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_or_an_empty_one_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequest) as caught:
        unpack(tmp_path / name, tmp_path / "out", LIMITS)
    assert caught.value.remedy


def test_a_compressed_file_is_counted_before_anybody_reads_it(tmp_path: Path) -> None:
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(b"a\n" * 1_000_000))
    check_gzip(tmp_path / "rows.csv.gz", 2_000_000)
    with pytest.raises(TooLarge):
        check_gzip(tmp_path / "rows.csv.gz", 1_999_999)
