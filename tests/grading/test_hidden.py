import logging
from pathlib import Path

import numpy as np
import pytest

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.errors import UserError
from lens_hpc.grading.hidden import check_cutouts_alike, draw_hidden
from tests.conftest import pack_survey, write_survey


@pytest.fixture(scope="module")
def toy(packed_once: Path) -> Dataset:
    """20 lenses and 20 others, in three splits."""
    return Dataset(packed_once)


def test_they_are_a_share_of_all_and_have_the_label_of_their_kind(toy: Dataset) -> None:
    kinds = {"known": toy, "injected": toy, "ordinary": toy}
    drawn = draw_hidden(kinds, candidates=99, share=0.1, rng=np.random.default_rng(0))
    assert drawn["kind"].value_counts().to_dict() == {"known": 4, "injected": 4, "ordinary": 3}
    assert not drawn.duplicated(["kind", "split", "row"]).any()

    for kind, split, row, truth in drawn[["kind", "split", "row", "truth"]].itertuples(index=False):
        assert truth == (kind != "ordinary")
        assert toy[split][row].label == truth


def test_few_candidates_have_one_of_each_kind_among_them(toy: Dataset) -> None:
    drawn = draw_hidden({"known": toy, "ordinary": toy}, 3, 0.1, np.random.default_rng(0))
    assert drawn["kind"].tolist() == ["known", "ordinary"]


def test_where_there_are_too_few_all_are_hidden_and_it_is_said(
    toy: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        drawn = draw_hidden({"known": toy}, 100, 0.5, np.random.default_rng(0))
    assert len(drawn) == 20
    assert "20 rows of label 1, where hidden_share asks for 100; all are hidden" in caplog.text


def test_a_dataset_without_the_label_is_refused(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s", rows=4, is_lens=["0", "0", "0", "0"])
    ordinary = Dataset(pack_survey(survey, tmp_path / "d", "splits={test: 1.0}"))
    with pytest.raises(UserError, match=r"known = .*/d: has no row of label 1; name a dataset"):
        draw_hidden({"known": ordinary}, 10, 0.1, np.random.default_rng(0))


def test_cutouts_that_could_be_told_from_the_candidates_are_refused(toy: Dataset) -> None:
    check_cutouts_alike("known", toy, toy.manifest)
    slightly = toy.manifest.model_copy(update={"pixel_scale_arcsec": 0.202})
    check_cutouts_alike("known", toy, slightly)

    check_cutouts_alike("known", toy, toy.manifest.model_copy(update={"dtype": "float16"}))
    with pytest.raises(UserError, match="from the candidates: pixels in float32, not uint8"):
        check_cutouts_alike("known", toy, toy.manifest.model_copy(update={"dtype": "uint8"}))

    changes = {"bands": ("g", "z"), "width": 9, "units": "nJy", "pixel_scale_arcsec": 0.21}
    with pytest.raises(UserError) as refused:
        check_cutouts_alike("known", toy, toy.manifest.model_copy(update=changes))
    assert str(refused.value) == (
        f"known = {toy.path}: its cutouts would be told from the candidates: bands g, r, not g, z; "
        "size 8 x 8 px, not 8 x 9 px; units counts, not nJy; pixels of 0.2 arcsec, not 0.21. "
        "Pack them as the candidates' survey is"
    )
