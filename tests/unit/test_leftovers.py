"""What killed processes leave behind is swept up, and nothing else."""

import tempfile

from difftract_bids.io.aside import AsideFile
from difftract_bids.io.leftovers import sweep


def begin(path):
    """Begin a file as `AsideFile` does, and never finish it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent, delete=False):
        pass


def test_files_are_begun_under_names_like_these(tmp_path):
    aside = AsideFile(tmp_path / "a.txt")
    (begun,) = tmp_path.iterdir()
    begin(tmp_path / "a.txt")
    aside.discard()
    (other,) = tmp_path.iterdir()
    assert len(other.name) == len(begun.name)
    assert other.name.startswith(".a.txt.")


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_half_written_files_go_and_all_others_stay(tmp_path):
    own = tmp_path / "sub-01"
    begin(own / "dwi" / "sub-01_tractogram.trx")
    (own / "dwi" / ".writing-abc" / "sub-01").mkdir(parents=True)
    (own / "dwi" / ".writing-abc" / "sub-01" / "x.nii.gz").touch()
    kept = (own / "dwi" / "sub-01_dwi.nii.gz", own / ".hidden", own / ".nfs0000000012345678")
    for path in kept:
        path.touch()
    assert sweep(own, deep=True) == 2
    assert names(own) == sorted(["dwi", *(path.name for path in kept)])


def test_at_the_top_only_one_s_own_files_are_swept(tmp_path):
    for name in ("sub-01.html", "sub-011.html", "sub-02.html"):
        begin(tmp_path / name)
    (tmp_path / ".writing-other").mkdir()
    assert sweep(tmp_path, beginning="sub-01.html") == 1
    left = [name for name in names(tmp_path) if name != ".writing-other"]
    assert [name.rsplit(".", 1)[0] for name in left] == [".sub-011.html", ".sub-02.html"]


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert sweep(tmp_path / "sub-01", deep=True) == 0
