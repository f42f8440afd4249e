import json
import subprocess
import tarfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lens_hpc.errors import UserError
from lens_hpc.packing.image_formats import BadCutoutError, read_image
from lens_hpc.packing.tar_files import tar_members, tar_of, tar_table
from lens_hpc.packing.templates import files_below


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))


def npy(image: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, image)
    return buffer.getvalue()


def test_a_path_may_lead_into_an_archive() -> None:
    assert tar_of("a/b.tar/c/d.png") == "a/b.tar"
    assert tar_of("a/b.tar") is None
    assert tar_of("a/b.target/c.png") is None


def test_a_folder_with_the_name_of_an_archive_is_none(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(1, 8, 8))
    folder = tmp_path / "survey.tar" / "b.tar"
    folder.mkdir(parents=True)
    np.save(folder / "a.npy", image)
    write_tar(folder / "c.tar", {"a.npy": npy(image)})
    for path in ("a.npy", "c.tar/a.npy"):
        np.testing.assert_array_equal(read_image(f"{folder}/{path}"), image)
    assert tar_of("b.tar/a.npy", f"{tmp_path}/survey.tar") is None
    assert tar_of("b.tar/c.tar/a.npy", f"{tmp_path}/survey.tar") == "b.tar/c.tar"


@pytest.mark.parametrize("kind", ["gnu", "posix"])
def test_an_archive_with_holes_is_refused(tmp_path: Path, kind: str) -> None:
    """As tar -S writes it: the zeros of a member are left out."""
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (99, 99)}
        )
        file.truncate(file.tell() + 99 * 99 * 8)
    command = ["tar", "-cSf", tmp_path / "a.tar", f"--format={kind}", "-C", tmp_path, "a.npy"]
    subprocess.run(command, check=True)
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.getmembers()[0].issparse()
    with pytest.raises(BadCutoutError, match=r"a\.npy is stored with holes; .* without tar -S"):
        read_image(f"{tmp_path}/a.tar/a.npy")


def test_members_are_read_as_files_are(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)
    buffer = BytesIO()
    fits.PrimaryHDU(images[2]).writeto(buffer)
    members = {"000.npy": npy(images[0]), "./sub/001.image.npy": npy(images[1])}
    write_tar(tmp_path / "a.tar", members | {"002.fits": buffer.getvalue()})
    for image, name in zip(images, ("000.npy", "sub/001.image.npy", "002.fits"), strict=True):
        np.testing.assert_array_equal(read_image(f"{tmp_path}/a.tar/{name}"), image)
    with pytest.raises(BadCutoutError, match=r"a\.tar/003\.npy: .*no member"):
        read_image(f"{tmp_path}/a.tar/003.npy")


def test_an_archive_that_has_changed_is_read_anew(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"0.npy": npy(np.zeros((4, 4)))})
    assert set(tar_members(str(tmp_path / "a.tar"))) == {"0.npy"}
    write_tar(tmp_path / "a.tar", {"0.npy": npy(np.zeros((4, 4))), "1.npy": npy(np.ones((4, 4)))})
    assert set(tar_members(str(tmp_path / "a.tar"))) == {"0.npy", "1.npy"}


def test_an_archive_that_is_cut_off_is_told(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"0.npy": npy(np.zeros((99, 99)))})
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:3000])
    with pytest.raises(BadCutoutError, match=r"0\.npy"):
        read_image(f"{tmp_path}/a.tar/0.npy")


def test_samples_tell_their_labels(tmp_path: Path) -> None:
    fields = {"is_lens": True, "mag": 21.5, "name": "x", "none": None, "list": [1]}
    write_tar(
        tmp_path / "b.tar",
        {"007.npy": b"", "007.json": json.dumps(fields).encode(), "s/008.cls": b"1\n"},
    )
    write_tar(tmp_path / "a.tar", {"007.npy": b"", "007.cls": b"0"})
    table = tar_table(tmp_path)
    assert table.to_dict("records") == [
        {"__tar__": "a.tar", "__key__": "007", "cls": "0", "is_lens": "", "mag": "", "name": "", "none": ""},  # noqa: E501
        {"__tar__": "b.tar", "__key__": "007", "cls": "", "is_lens": "true", "mag": "21.5", "name": "x", "none": ""},  # noqa: E501
        {"__tar__": "b.tar", "__key__": "s/008", "cls": "1", "is_lens": "", "mag": "", "name": "", "none": ""},  # noqa: E501
    ]  # fmt: skip
    (tmp_path / "a.tar").unlink()
    write_tar(tmp_path / "b.tar", {"007.json": b"[1]"})
    with pytest.raises(ValueError, match="must hold a mapping"):
        tar_table(tmp_path / "b.tar")


@pytest.mark.parametrize("damage", ["header", "zeros", "cut"])
def test_an_archive_is_not_taken_for_a_shorter_one(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, dict.fromkeys(("a.txt", "b.txt", "c.txt"), b"a"))
    content = bytearray(path.read_bytes())

    # Each member is a header and a block of content, 512 bytes each.
    if damage == "header":
        content[1024 + 3] ^= 1
    elif damage == "zeros":
        content[1024:1536] = bytes(512)
    else:
        del content[2048:]
    path.write_bytes(content)
    with pytest.raises(tarfile.ReadError, match="damaged or cut off after byte"):
        tar_members(str(path))
    with pytest.raises(UserError, match=r"x\.tar: cannot be read as a tar archive"):
        files_below(tmp_path)
