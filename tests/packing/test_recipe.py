from pathlib import Path

import pytest

from lens_hpc import settings
from lens_hpc.errors import UserError
from lens_hpc.packing.plan import recipe_of
from lens_hpc.packing.recipe import PackSettings
from tests.conftest import RECIPE, pack_survey

PLACES = ("source=a", "output=b")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return file


def refusal(recipe: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        settings.load(PackSettings, recipe, [*PLACES, *overrides])
    return str(error.value)


def test_features_are_features(recipe: Path) -> None:
    assert "must not hold the id, label" in refusal(recipe, "columns.features=[radius, is_lens]")
    assert "must differ from each other" in refusal(recipe, "columns.features=[radius, radius]")


def test_srun_is_known_by_its_step_and_a_batch_script_is_no_step(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert settings.load(PackSettings, recipe, PLACES).tasks == 1
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    loaded = settings.load(PackSettings, recipe, PLACES)
    assert (loaded.task, loaded.tasks) == (1, 2)


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "manifest.json"])
def test_names_of_splits_are_names(tmp_path: Path, survey: Path, name: str) -> None:
    with pytest.raises(UserError, match="splits"):
        pack_survey(survey, tmp_path / "d", f"splits={{train: 0.7, '{name}': 0.3}}")


def test_a_recipe_cannot_say_what_is_imported(recipe: Path) -> None:
    recipe.write_text(RECIPE + "format: evil.formats.read\ncode: [evil]\n")
    assert "code must not stand in a file" in refusal(recipe)


def test_a_format_is_no_matter_of_a_stack(recipe: Path) -> None:
    reason = refusal(recipe, "images=null", "stack=images.npy", "format=npy")
    assert "format is for images; a stack is read by its ending" in reason


def test_what_does_not_decide_the_content_is_no_part_of_the_recipe(recipe: Path) -> None:
    plain = recipe_of(settings.load(PackSettings, recipe, PLACES))
    other = settings.load(PackSettings, recipe, [*PLACES, "processes=7", "code=[mine]"])
    assert recipe_of(other) == plain
    named = recipe_of(settings.load(PackSettings, recipe, [*PLACES, "format=npy"]))
    assert named == {**plain, "format": "npy"}


@pytest.mark.parametrize("size", ["[1000000000, 8]", "[8, 10001]", "[0, 8]"])
def test_a_size_that_no_cutout_has_is_named(recipe: Path, size: str) -> None:
    assert "size" in refusal(recipe, f"size={size}")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A source folder whose catalogue is a link out of it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "far.csv").write_text("id\n")
    (tmp_path / "a" / "near.csv").write_text("id\n")
    (tmp_path / "a" / "catalogue.csv").symlink_to(tmp_path / "far.csv")
    return tmp_path


@pytest.mark.parametrize("path", ["../far.csv", "{}/far.csv", "catalogue.csv", "../a/../far.csv"])
def test_a_file_outside_is_read_where_the_user_says_so(
    outside: Path, recipe: Path, path: str
) -> None:
    path = path.format(outside)
    recipe.write_text(RECIPE.replace("catalogue: catalogue.csv", f"catalogue: {path}"))
    source = f"source={outside / 'a'}"
    assert "catalogue: " in refusal(recipe, source)
    assert "follow_links=true" in refusal(recipe, source)

    for word in ("follow_links=true", f"catalogue={path}"):
        loaded = settings.load(PackSettings, recipe, [*PLACES, source, word])
        assert loaded.catalogue == Path(path)
    values = {"source": outside / "a", "output": "b", "catalogue": path}
    assert settings.load(PackSettings, recipe, values=values).catalogue == Path(path)


@pytest.mark.parametrize("path", ["near.csv", "../a/near.csv", "{}/a/near.csv", "absent.csv"])
def test_a_file_inside_is_read_whatever_its_path(outside: Path, recipe: Path, path: str) -> None:
    recipe.write_text(RECIPE.replace("catalogue.csv", path.format(outside)))
    (outside / "linked").symlink_to(outside / "a")
    for source in ("a", "linked"):
        settings.load(PackSettings, recipe, [*PLACES, f"source={outside / source}"])


def test_one_path_of_the_users_own_word_does_not_speak_for_another(
    outside: Path, recipe: Path
) -> None:
    text = RECIPE.replace('images: "{id}.npy"', "stack: {g: ../far.npy, r: ../far.npy}")
    recipe.write_text(text.replace("catalogue: catalogue.csv", "catalogue: near.csv"))
    reason = refusal(recipe, f"source={outside / 'a'}", "stack.g=../far.npy")
    assert "stack.r: " in reason
    assert "stack.g: " not in reason


def test_a_survey_may_have_thousands_of_features_and_planes(recipe: Path) -> None:
    names = ", ".join(f"f{number}" for number in range(5000))
    loaded = settings.load(PackSettings, recipe, [*PLACES, f"columns.features=[{names}]"])
    assert len(loaded.columns.features) == 5000
    assert settings.load(PackSettings, recipe, [*PLACES, "planes=[10, 3680]"]).planes == (10, 3680)
    planes = ", ".join(map(str, range(1001)))
    assert "planes" in refusal(recipe, f"planes=[{planes}]")


def test_a_link_in_a_folder_that_nothing_reads_is_no_matter(outside: Path, recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("catalogue: catalogue.csv", "catalogue: parts"))
    folder = outside / "a" / "parts"
    folder.mkdir()
    (folder / "README").symlink_to(outside / "far.csv")
    (folder / "lost.parquet").symlink_to(outside / "nowhere")
    (folder / "old").symlink_to(outside)
    source = f"source={outside / 'a'}"
    assert settings.load(PackSettings, recipe, [*PLACES, source]).catalogue == Path("parts")
    (folder / "part.parquet").symlink_to(outside / "far.csv")
    assert "part.parquet leads out" in refusal(recipe, source)


MOSAICS = """
name: survey
catalogue: catalogue.csv
mosaics: {path: "{tile}/{band}.fits"}
bands: [g, r]
size: [64, 64]
pixel_scale: 0.2
units: nJy
"""


def test_mosaics_are_described_in_a_recipe(recipe: Path) -> None:
    recipe.write_text(MOSAICS)
    loaded = settings.load(
        PackSettings, recipe, [*PLACES, "mosaics.zero_point=MAGZERO", "zero_point=31.4"]
    )
    assert loaded.mosaics is not None
    assert loaded.mosaics.zero_point_of("r") == "MAGZERO"
    assert (loaded.mosaics.ra, loaded.mosaics.dec, loaded.mosaics.tile) == ("ra", "dec", None)
    assert "tile_memory" not in recipe_of(loaded)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("images='{id}.npy'", "give one of images, stack and mosaics"),
        ("mosaics=null", "give one of images, stack and mosaics"),
        ("catalogue=null", "mosaics need a catalogue, which says where the objects are"),
        ("size=null", "mosaics need size: [height, width] of a cutout"),
        ("mosaics.path='{band}.fits'", "path must hold {tile}"),
        ("mosaics.path={g: '{tile}.fits'}", "mosaics.path must name the bands g, r: got g"),
        ("mosaics.edge=fill", "mosaics.edge"),
        ("mosaics.radius=3", "mosaics.radius"),
        ("mosaics.zero_point=25", "mosaics.zero_point needs zero_point"),
        ("zero_point={r: 30}", "zero_point must name the bands g, r: got r"),
        ("key=data", "key is not for mosaics"),
        ("format=npy", "format is not for mosaics"),
        ("planes=[0]", "planes is not for mosaics"),
        ("axes=HWB", "axes is not for mosaics"),
        ("masks={key: m}", "masks.key is not for mosaics"),
        ("hdu='{field}_SCI'", "hdu may hold {band} for mosaics, and no column"),
    ],
)
def test_a_recipe_of_mosaics_that_cannot_work_is_refused(
    recipe: Path, override: str, reason: str
) -> None:
    recipe.write_text(MOSAICS)
    if override.startswith("zero_point"):
        recipe.write_text(MOSAICS.replace("mosaics: {", "mosaics: {zero_point: 25, "))
    assert reason in refusal(recipe, override)
