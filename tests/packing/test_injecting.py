"""An injected dataset: what is painted, what is carried on, and that it is whole or not at all."""

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.errors import UserError
from lens_hpc.packing import painted_parts
from lens_hpc.packing.injecting import Injected, inject
from lens_hpc.packing.source_galaxies import open_galaxies
from lens_hpc.reporting.breakdown import choose_columns
from lens_hpc.sky.psf import moffat_stamp
from tests.conftest import call, pack_survey
from tests.integration.commands import done, lens_hpc
from tests.kills import UNDISTURBED, files_of, kill_and_restart
from tests.packing.injections import (
    BANDS,
    SIZE,
    pack_galaxies,
    pack_pictures,
    pack_sources,
    recipe_of,
    sources_of,
    workers_that_are_threads,
    write_galaxies,
    write_recipe,
)

KILLS = 50 if "LENS_HPC_LONG" in os.environ else 3


@pytest.fixture(autouse=True)
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painted_parts, "workers", workers_that_are_threads)
    monkeypatch.setattr(painted_parts, "PART_ROWS", 7)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 galaxies, of which 2 are labelled lenses; not to be changed."""
    return pack_galaxies(tmp_path_factory.mktemp("galaxies"), rows=20)


@pytest.fixture(scope="module")
def injected(packed: Path) -> Injected:
    """What becomes of them by the recipe as it is; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(painted_parts, "workers", workers_that_are_threads)
        return inject_into(packed, packed.with_name("injected"))


def inject_into(packed: Path, output: Path, **changes: Any) -> Injected:
    return inject(packed, output, recipe_of(**changes), processes=1)


def table_of(dataset: Path) -> pd.DataFrame:
    return Dataset(dataset).to_pandas().set_index("id")


def images_of(dataset: Path) -> dict[str, np.ndarray]:
    found = {}
    for split in Dataset(dataset).values():
        found |= dict(zip(split.ids().tolist(), split[:].images, strict=True))
    return found


# ---- what is written ----


def test_lenses_and_non_lenses_are_the_hosts(packed: Path, injected: Injected) -> None:
    before, table = table_of(packed), table_of(injected.output)
    truth = pd.read_parquet(injected.output / "truth.parquet").set_index("id")

    assert set(table.index) == set(before.index[before["label"] != 1])
    assert injected.painted == len(truth) == (table["label"] == 1).sum() == 8
    assert set(truth.index) == set(table.index[table["label"] == 1])
    assert (table["label"].isin([0, 1])).all()
    np.testing.assert_array_equal(table["injection"] == "painted", table["label"] == 1)

    # All that is known of a host is carried on, and nothing of the truth is among it.
    columns = ["split", "colour", "z", "sigma_v", "seeing_i", "tile"]
    pd.testing.assert_frame_equal(table[columns], before.loc[table.index, columns])
    assert set(table.columns) == {*before.columns, "injection"}
    call("verify", injected.output)


def test_an_evaluation_is_broken_down_by_the_truth(injected: Injected) -> None:
    split = Dataset(injected.output)["train"]
    truth = split.truth()
    is_lens = split[:].labels == 1
    assert truth.index.tolist() == split.ids().tolist()
    np.testing.assert_array_equal(truth["einstein_radius"].notna(), is_lens)

    # Objects without an arc have a value of their own.
    column = choose_columns(split, ["einstein_radius"])["einstein_radius"]
    np.testing.assert_array_equal(column.codes == column.names.index("missing"), ~is_lens)
    with pytest.raises(UserError, match=r"'arc_mask' is no column of .* arc_snr_i"):
        choose_columns(split, ["arc_mask"])


def test_a_dataset_of_no_arcs_has_no_truth(packed: Path) -> None:
    split = Dataset(packed)["train"]
    assert split.truth().shape == (len(split), 0)


def test_pixels_differ_where_the_arc_is_and_nowhere_else(packed: Path, injected: Injected) -> None:
    before, after = images_of(packed), images_of(injected.output)
    truth = pd.read_parquet(injected.output / "truth.parquet").set_index("id")
    for name, image in after.items():
        difference = image - before[name]
        if name not in truth.index:
            assert not difference.any()
            continue
        packed_mask = np.frombuffer(truth.loc[name, "arc_mask"], np.uint8)
        mask = np.unpackbits(packed_mask, count=SIZE**2).reshape(SIZE, SIZE).astype(bool)
        flux = 10 ** (-0.4 * (truth.loc[name, [f"arc_mag_{band}" for band in BANDS]] - 27.0))
        assert mask.any()
        np.testing.assert_allclose(
            difference.sum(axis=(1, 2), dtype=float), flux.astype(float), rtol=0.1
        )


def test_rows_that_are_kept_stay_and_arcs_are_added(packed: Path, tmp_path: Path) -> None:
    inject_into(packed, tmp_path / "o", others="keep", splits=("train",))
    before, table = table_of(packed), table_of(tmp_path / "o")
    columns = list(before.columns)
    pd.testing.assert_frame_equal(table.loc[before.index, columns], before)
    assert (table.loc[before.index, "injection"] == "real").all()

    painted = table.drop(index=before.index)
    assert len(painted)
    assert (painted["split"] == "train").all()
    assert (painted["label"] == 1).all()
    truth = pd.read_parquet(tmp_path / "o" / "truth.parquet").set_index("id")
    assert set(truth.index) == set(painted.index)
    assert (truth["host_id"] + "+arc" == truth.index).all()
    images, hosts = images_of(tmp_path / "o"), images_of(packed)
    for name in before.index:
        assert images[name].tobytes() == hosts[name].tobytes()


def test_all_others_may_be_dropped(packed: Path, tmp_path: Path) -> None:
    inject_into(packed, tmp_path / "o", others="drop", where="label == 0", share=1.0)
    table = table_of(tmp_path / "o")
    assert len(table) == 2
    assert (table["label"] == 1).all()


def test_splits_that_are_not_painted_stay_as_they_are(packed: Path, tmp_path: Path) -> None:
    inject_into(packed, tmp_path / "o", splits=("train",))
    before, after = Dataset(packed)["test"], Dataset(tmp_path / "o")["test"]
    rows = np.arange(len(before))
    for column in ("images", "labels", "features", "ids", "weights", "targets"):
        np.testing.assert_array_equal(after.take(column, rows), before.take(column, rows))


@pytest.mark.parametrize("others", ["nonlens", "drop"])
def test_a_painted_split_without_hosts_is_left_out(
    packed: Path, tmp_path: Path, others: str
) -> None:
    only_train = "label != 1 & split == 'train'"
    inject_into(packed, tmp_path / "o", others=others, where=only_train)
    assert [*Dataset(tmp_path / "o")] == ["train"]


def test_weights_groups_and_sources_are_carried_on(packed: Path, injected: Injected) -> None:
    before, after = Dataset(packed)["train"], Dataset(injected.output)["train"]
    places = {name: row for row, name in enumerate(before.ids().tolist())}
    there = np.array([places[name] for name in after.ids().tolist()])
    assert (np.diff(there) > 0).all()
    for column in ("weights", "groups", "sources", "features"):
        now = after.take(column, np.arange(len(after)))
        np.testing.assert_array_equal(now, before.take(column, there))


def test_the_manifest_tells_how_it_was_painted(packed: Path, injected: Injected) -> None:
    recipe = injected.manifest.recipe
    assert recipe["injection"]["recipe"] == recipe_of().model_dump(mode="json")
    assert recipe["catalogue"] == "catalogue.csv"
    # A run that was trained on the one can score the other.
    assert injected.manifest.kind == Dataset(packed).manifest.kind


def test_pictures_may_be_assumed_to_be_linear(tmp_path: Path) -> None:
    packed = pack_pictures(tmp_path, rows=20)
    with pytest.raises(UserError, match="have 8 bits"):
        inject_into(packed, tmp_path / "o")

    law = {"z": {"fixed": 2.0}, "band": "i", "magnitude": {"fixed": 20.0}}
    sources = law | {"colors": {"g": {"fixed": 0.0}}}
    injected = inject_into(packed, tmp_path / "o", pixels="assume_linear", sources=sources)
    assert injected.manifest.dtype == "uint8"
    assert injected.manifest.recipe["injection"]["recipe"]["pixels"] == "assume_linear"
    before, after = images_of(packed), images_of(injected.output)
    changed = [name for name in after if (after[name] != before[name]).any()]
    assert len(changed) == injected.painted


def test_hosts_that_cannot_be_lenses_are_neither(packed: Path, tmp_path: Path) -> None:
    heavy = {"sigma_v": "sigma_v", "z_lens": "z", "within": (1.9, 2.5)}
    injected = inject_into(packed, tmp_path / "o", deflector=heavy)
    table = table_of(tmp_path / "o")
    assert 0 < injected.painted < 8
    assert f"{8 - injected.painted} hosts that were drawn are too light" in injected.text
    # A lighter host could not have been painted, so that it is no non-lens of this law.
    lightest = table.groupby("label")["sigma_v"].min()
    assert lightest[0] > 270
    assert lightest[1] > 270


# ---- sources that are real galaxies ----


def test_arcs_of_galaxies_are_told_with_their_ids(packed: Path, tmp_path: Path) -> None:
    galaxies = pack_sources(tmp_path)
    catalogue = table_of(galaxies)
    injected = inject_into(packed, tmp_path / "o", sources=sources_of(galaxies))
    truth = pd.read_parquet(tmp_path / "o" / "truth.parquet")
    assert len(truth) == injected.painted == 8
    assert truth["source_id"].nunique() > 3
    rows = catalogue.loc[truth["source_id"]].reset_index(drop=True)
    np.testing.assert_allclose(truth["z_source"], rows["photo_z"].astype(float), rtol=1e-6)
    np.testing.assert_allclose(truth["source_mag_i"], rows["mag"].astype(float))
    colours = truth["source_mag_g"] - truth["source_mag_i"]
    np.testing.assert_allclose(colours, rows["blue"].astype(float), atol=1e-9)

    # An id is nothing to break an evaluation down by.
    assert "source_id" not in choose_columns(Dataset(injected.output)["train"], ["einstein_radius"])
    call("verify", injected.output)


def test_no_source_is_behind_hosts_of_two_splits(packed: Path, tmp_path: Path) -> None:
    hosts, galaxies = table_of(packed)["split"], table_of(pack_sources(tmp_path))["split"]
    assert set(galaxies) == set(hosts) == {"train", "test"}

    law = sources_of(tmp_path / "galaxies")
    injected = inject_into(packed, tmp_path / "o", sources=law, share=1.0)
    truth = pd.read_parquet(injected.output / "truth.parquet")
    of_hosts = table_of(injected.output).loc[truth["id"], "split"].to_numpy()
    of_sources = galaxies[truth["source_id"]].to_numpy()
    for split in ("train", "test"):
        assert set(of_sources[of_hosts == split]) == {split}

    # Where there is no such split, any galaxy will do.
    for_validation = open_galaxies(recipe_of(sources=law).sources, "val")
    assert for_validation is not None
    assert len(for_validation) > (galaxies == "train").sum()


def test_galaxies_that_were_packed_anew_are_other_ones(packed: Path, tmp_path: Path) -> None:
    sources = sources_of(pack_sources(tmp_path))
    inject_into(packed, tmp_path / "o", sources=sources)
    inject_into(packed, tmp_path / "o", sources=sources)

    # The same recipe and folder, but what lies there is another dataset.
    shutil.rmtree(tmp_path / "galaxies")
    shutil.rmtree(tmp_path / "sources")
    pack_sources(tmp_path, rows=9)
    with pytest.raises(UserError, match="of another recipe"):
        inject_into(packed, tmp_path / "o", sources=sources)


# ---- the same bytes ----


def test_what_is_painted_is_not_painted_again(
    packed: Path, injected: Injected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    original = painted_parts._paint

    def paint_two(job: Any, part: Any) -> int:
        written.append(part.number)
        if len(written) > 2:
            raise KeyboardInterrupt
        return original(job, part)

    monkeypatch.setattr(painted_parts, "_paint", paint_two)
    with pytest.raises(KeyboardInterrupt):
        inject_into(packed, tmp_path / "o")
    assert not (tmp_path / "o").exists()
    assert len([*(tmp_path / ".o.painting").iterdir()]) == 2

    monkeypatch.setattr(painted_parts, "_paint", original)
    (tmp_path / ".o.painting" / "part-000000.parquet").write_bytes(b"damaged")
    before = (tmp_path / ".o.painting" / "part-000001.parquet").stat().st_ino
    shutil.copytree(tmp_path / ".o.painting", tmp_path / "kept", copy_function=os.link)
    inject_into(packed, tmp_path / "o")
    assert (tmp_path / "kept" / "part-000001.parquet").stat().st_ino == before
    assert files_of(tmp_path / "o") == files_of(injected.output)
    assert not (tmp_path / ".o.painting").exists()


def test_parts_of_another_seed_are_painted_anew(
    packed: Path, injected: Injected, tmp_path: Path
) -> None:
    known = tmp_path / "known.csv"
    known.write_text("einstein_radius\n" + "9.0\n" * 30)
    with pytest.raises(UserError, match="not like the lenses of"):
        inject_into(packed, tmp_path / "o", seed=2, known=known)
    assert (tmp_path / ".o.painting").is_dir()

    # The files are of the same names, and the sizes of the parts do not matter.
    inject_into(packed, tmp_path / "o")
    assert files_of(tmp_path / "o") == files_of(injected.output)


def test_what_a_gate_refused_is_not_painted_again(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "known.csv"
    known.write_text("einstein_radius\n" + "9.0\n" * 30)
    with pytest.raises(UserError, match="not like the lenses of"):
        inject_into(packed, tmp_path / "o", known=known)

    monkeypatch.setattr(painted_parts, "_paint", None)
    inject_into(packed, tmp_path / "o", known=known, gate="warn")


def test_arcs_that_nobody_sees_are_counted(
    packed: Path, injected: Injected, tmp_path: Path
) -> None:
    """99 is what many catalogues write for no magnitude."""
    sources = {"z": {"fixed": 2.0}, "band": "i", "magnitude": {"fixed": 99.0}}
    unseen = inject_into(packed, tmp_path / "o", sources=sources | {"colors": {"g": {"fixed": 0}}})
    assert f"{unseen.painted} arcs are lost in the noise" in unseen.text
    assert "lost in the noise" not in injected.text


# ---- refusals ----


def test_a_finished_output_is_told_and_another_recipe_refused(
    packed: Path, injected: Injected, tmp_path: Path
) -> None:
    output = injected.output
    before = files_of(output)
    assert inject_into(packed, output).text == injected.text
    with pytest.raises(UserError, match="of another recipe"):
        inject_into(packed, output, seed=1)
    with pytest.raises(UserError, match="holds something else"):
        inject_into(packed, tmp_path)
    assert files_of(output) == before


def test_an_injected_dataset_is_no_host(injected: Injected, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has a column 'injection' already"):
        inject_into(injected.output, tmp_path / "again")


def test_a_gate_that_only_warns_lets_arcs_pass(packed: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.csv"
    known.write_text("einstein_radius\n" + "9.0\n" * 30)
    injected = inject_into(packed, tmp_path / "o", known=known, gate="warn")
    assert "outside of 9 to 9" in injected.text


def test_a_stamp_that_is_not_there_is_named(packed: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "{tile}.fits")
    with pytest.raises(UserError, match=r"t0\.fits: cannot be read"):
        inject_into(packed, tmp_path / "o", psf={"g": 0.8, "i": missing})


def test_a_band_that_hosts_lack_needs_no_column(
    packed: Path, injected: Injected, tmp_path: Path
) -> None:
    psf = {"g": 0.8, "i": {"column": "seeing_i"}, "y": {"column": "seeing_y"}}
    inject_into(packed, tmp_path / "o", psf=psf)
    expected, found = images_of(injected.output), images_of(tmp_path / "o")
    for name, image in expected.items():
        np.testing.assert_array_equal(found[name], image)


@pytest.mark.parametrize("card", ["NAXIS2", "BITPIX"])
def test_a_stamp_with_a_damaged_header_is_named(packed: Path, tmp_path: Path, card: str) -> None:
    stamp = tmp_path / "stamp.fits"
    fits.writeto(stamp, moffat_stamp(0.7, 0.2))
    content = stamp.read_bytes()
    stamp.write_bytes(content.replace(f"{card:8}=".encode(), f"{card:8}x".encode()))
    with pytest.raises(UserError, match=r"stamp\.fits: cannot be read as the FITS stamp"):
        inject_into(packed, tmp_path / "o", psf={"g": 0.8, "i": str(stamp)})


def test_a_host_whose_mass_is_not_known_is_named(tmp_path: Path) -> None:
    survey = write_galaxies(tmp_path / "s", rows=20)
    table = pd.read_csv(survey / "catalogue.csv").set_index("id")
    table.loc["gal007", "sigma_v"] = np.nan
    table.to_csv(survey / "catalogue.csv")
    packed = pack_survey(survey, tmp_path / "d")
    with pytest.raises(UserError, match=r"gal007: .* neither velocity dispersion nor magnitude"):
        inject_into(packed, tmp_path / "o")
    inject_into(packed, tmp_path / "o", where="label != 1 & sigma_v > 0")


@pytest.mark.parametrize("none", [0.0, -99.0])
def test_values_that_stand_for_no_measurement_are_none(tmp_path: Path, none: float) -> None:
    survey = write_galaxies(tmp_path / "s", rows=20)
    table = pd.read_csv(survey / "catalogue.csv").set_index("id").assign(mag=17.5)
    table.loc["gal007", "sigma_v"] = none
    table.loc["gal008", "z"] = none
    table.to_csv(survey / "catalogue.csv")
    packed = pack_survey(survey, tmp_path / "d", "columns.keep=[sigma_v,seeing_i,tile,mag]")
    law = {"sigma_v": "sigma_v", "magnitude": "mag", "z_lens": "z"}
    with pytest.raises(UserError, match="gal008: the host's redshift, z, is not known"):
        inject_into(packed, tmp_path / "o", deflector=law)

    inject_into(packed, tmp_path / "o", deflector=law, where="label != 1 & z > 0", share=1.0)
    truth = pd.read_parquet(tmp_path / "o" / "truth.parquet").set_index("host_id")
    assert truth.loc["gal007", "sigma_v"] > 150  # its magnitude stands in


@pytest.mark.parametrize(
    "changes",
    [
        {"psf": {"g": 0.8, "i": {"column": "tile"}}},
        {"deflector": {"einstein_radius": {"fixed": 1.0}, "z_lens": "tile"}},
    ],
)
def test_a_column_of_texts_in_place_of_numbers_is_named(
    packed: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=r"gal\d+: its tile is no number: 't\d'"):
        inject_into(packed, tmp_path / "o", **changes)


# ---- real processes ----


def command(packed: Path, output: Path, recipe: Path, processes: int) -> list[str]:
    settings = [f"output={output}", f"recipe={recipe}", f"processes={processes}"]
    return ["inject", str(packed), *settings]


@pytest.mark.slow
def test_one_two_and_three_processes_write_the_same_bytes(packed: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", sources=sources_of(pack_sources(tmp_path)))
    for processes in (1, 3):
        done(*command(packed, tmp_path / f"by-{processes}", recipe, processes))
    # And from the terminal on, where workers begin with nothing.
    assert lens_hpc(*command(packed, tmp_path / "by-2", recipe, 2)).returncode == 0
    expected = files_of(tmp_path / "by-1")
    assert "injection_sheet.png" in expected
    assert files_of(tmp_path / "by-2") == expected
    assert files_of(tmp_path / "by-3") == expected


@pytest.mark.slow
def test_killed_at_any_instant_the_same_line_goes_on(packed: Path, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    recipe = write_recipe(tmp_path / "r.yaml")
    output = tmp_path / "o"
    undisturbed = command(packed, output.with_name(UNDISTURBED), recipe, 2)
    kill_and_restart(undisturbed, command(packed, output, recipe, 2), output, KILLS, seed)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", "o", "r.yaml", UNDISTURBED]
