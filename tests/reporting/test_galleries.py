import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lens_hpc.dataset.split import Split
from lens_hpc.reporting import galleries, pictures
from lens_hpc.reporting.breakdown import Column
from lens_hpc.scoring.predictions import Scores
from tests.conftest import pack_survey, write_survey


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("galleries")
    survey = write_survey(folder / "s", rows=80, bands=3, size=20)
    options = ("bands=[g, r, i]", "splits={train: 1.0}")
    return Split(pack_survey(survey, folder / "d", *options), "train")


def scores_of(labels: np.ndarray, logits: np.ndarray) -> Scores:
    return Scores(labels.astype(np.int8), logits.astype(np.float32), None)


def test_each_gallery_holds_what_it_says_in_its_order(split: Split) -> None:
    logits = np.random.default_rng(0).permutation(80) - 40.0
    labels = split.take("labels", np.arange(80))
    album = galleries.make_album(split, scores_of(labels, logits))
    top, misses, alarms = album.galleries

    by_score = np.argsort(-logits)
    assert [card.id for card in top.cards] == split.ids(by_score[:16]).tolist()
    assert [card.rank for card in top.cards] == list(range(1, 17))
    assert {card.truth for card in misses.cards} == {"lens"}
    assert {card.truth for card in alarms.cards} == {"non-lens"}
    ranks = [card.rank for card in misses.cards]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0] == max(np.flatnonzero(labels[by_score] == 1)) + 1
    assert len(alarms.cards) == 24


@pytest.mark.parametrize(
    ("labels", "titles", "counts"),
    [
        ([-1] * 80, ["The top of the ranking"], [48]),
        ([1] * 80, ["The top of the ranking", "Worst misses"], [16, 24]),
        ([0] * 80, ["The top of the ranking", "Worst false alarms"], [16, 24]),
        (
            [-1] * 70 + [1] * 5 + [0] * 5,
            [
                "The top of the ranking",
                "Worst misses",
                "Worst false alarms",
                "Unlabelled, best-ranked",
            ],
            [16, 5, 5, 24],
        ),
    ],
)
def test_what_is_not_there_has_no_gallery(
    split: Split, labels: list[int], titles: list[str], counts: list[int]
) -> None:
    album = galleries.make_album(split, scores_of(np.array(labels), np.arange(80.0)))
    assert [gallery.title for gallery in album.galleries] == titles
    assert [len(gallery.cards) for gallery in album.galleries] == counts


def test_the_views_lie_side_by_side_in_one_picture(split: Split) -> None:
    album = galleries.make_album(split, scores_of(np.ones(80), np.arange(80.0)))
    assert album.views == ("colour", "shallow", "deep", "band g", "band r", "band i")
    kind, _, content = album.galleries[0].cards[0].picture.partition(";base64,")
    assert kind == "data:image/webp"
    with Image.open(io.BytesIO(base64.b64decode(content))) as strip:
        assert strip.size == (6 * 20, 20)


def test_each_gallery_is_a_sheet_of_first_views(split: Split, tmp_path: Path) -> None:
    album = galleries.make_album(split, scores_of(np.ones(80), np.arange(80.0)))
    galleries.save_sheets(tmp_path, album)
    assert {file.name for file in tmp_path.iterdir()} == {
        "the_top_of_the_ranking.png",
        "worst_misses.png",
    }
    top, misses = (Image.open(file) for file in sorted(tmp_path.iterdir()))
    assert (top.size, misses.size) == ((1024, 256), (1024, 384))
    first = galleries._first_view(album.galleries[0].cards[0].picture, len(album.views))
    assert np.array_equal(top.crop((0, 0, 128, 128)), first)


def test_north_is_up_and_large_cutouts_become_small() -> None:
    view = np.zeros((900, 600, 3))
    view[:300] = 1  # the first rows lie at the bottom, as in FITS files
    content = galleries._as_strip([view, 1 - view]).partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(content))) as strip:
        assert strip.size == (2 * 107, 160)
        brightness = np.asarray(strip.convert("L"))
    assert brightness[120:, 10:90].min() > 200
    assert brightness[:90, 10:90].max() < 50
    assert brightness[:90, 125:200].min() > 200


def test_even_noise_makes_no_large_page() -> None:
    image = np.random.default_rng(0).normal(size=(3, 64, 64))
    views = list(pictures.make_views(image, ("g", "r", "i"), np.ones((64, 64))).values())
    assert len(galleries._as_strip(views)) < 40_000, "64 of these are 2.6 MB"


def test_equal_scores_keep_the_order_of_the_split(split: Split) -> None:
    logits = np.arange(80) // 10 * 1.0
    album = galleries.make_album(split, scores_of(np.ones(80), logits))
    shown = [card.id for card in album.galleries[0].cards]
    assert shown == split.ids(np.array([*range(70, 80), *range(60, 66)])).tolist()


def test_a_card_tells_the_class_of_a_false_alarm(split: Split) -> None:
    rings = Column((np.arange(80) % 3 == 0).astype(np.int16), ["spiral", "ring"])
    scores = scores_of(np.zeros(80), np.arange(80.0))
    album = galleries.make_album(split, scores, columns={"class": rings})
    shown = [card.kept["class"] for card in album.galleries[1].cards[:3]]
    assert shown == ["spiral", "ring", "spiral"]


def test_many_features_do_not_fill_the_page(tmp_path: Path) -> None:
    names = [f"f{number}" for number in range(30)]
    columns = {name: [str(row) for row in range(40)] for name in names}
    survey = write_survey(tmp_path / "s", **columns)
    options = (f"columns.features=[{', '.join(names)}]", "splits={train: 1.0}")
    split = Split(pack_survey(survey, tmp_path / "d", *options), "train")
    album = galleries.make_album(split, scores_of(np.ones(40), np.arange(40.0)))
    (card, *_) = album.galleries[0].cards
    assert list(card.features) == names[:6]
