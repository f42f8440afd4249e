from pathlib import Path

import pytest
import torch

from lens_hpc import config
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.errors import UserError
from lens_hpc.training import readiness
from lens_hpc.training.readiness import check_training, world_size_of
from tests.conftest import call, pack_survey, write_survey

CONFIG = """
run: {folder}/run
data: {{dataset: {dataset}}}
model: {{backbone: test_resnet, weights: none, conv_channels: [16, 8], attention_channels: 4}}
train: {{global_batch_size: 8}}
"""


@pytest.fixture
def config_file(tmp_path: Path, dataset: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(folder=tmp_path, dataset=dataset))
    return file


def test_what_is_ready_is_said_to_be(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("check", config_file, "world_size=2", "train.micro_batch_size=2")
    printed = capsys.readouterr().out
    assert "8 a step = 2 processes x 2 micro-batches of 2" in printed
    assert "28 training rows (14 lenses), 8 x 8 px, g, r" in printed
    assert "million weights; training works in micro-batches of 2; about" in printed
    assert "ready for 2 processes" in printed
    assert not (config_file.parent / "run").exists()


def test_a_range_that_one_value_makes_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    radius = [f"{i / 100}" for i in range(39)] + ["99"]
    survey = write_survey(
        tmp_path / "s", radius=radius, split=["train"] * 30 + ["val"] * 9 + ["train"]
    )
    columns = "columns={id: id, label: is_lens, features: [radius, colour], split: split}"
    dataset = pack_survey(survey, tmp_path / "d", columns)
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG.format(folder=tmp_path, dataset=dataset))
    told = "99 makes the range of the feature radius"

    features = ("model.inputs=features", "augment.engine=torch")
    call("check", file, "world_size=1", *features)
    assert told not in caplog.text
    call("check", file, "world_size=1", *features, "model.feature_scaling=minmax")
    assert told in caplog.text


def test_too_few_non_lenses_to_choose_by_are_told(config_file: Path) -> None:
    with pytest.raises(UserError, match=r"train\.best = tpr10: needs 10 non-lenses .* has 3 there"):
        call("check", config_file, "world_size=1", "train.best=tpr10")


def test_all_problems_come_together(config_file: Path, dataset: Path) -> None:
    file = dataset / "val" / "shard-00000.h5"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="not ready") as error:
        call(
            "check",
            config_file,
            "world_size=3",
            "model.weights=pretrained",
            "model.weights_folder=/nowhere",
        )
    said = str(error.value)
    assert "cannot be shared evenly by 3 processes; choose 6 or 9" in said
    assert f"{file}: has " in said
    assert (
        "/nowhere/test_resnet.safetensors is not there; on a machine with internet run "
        "lens-hpc weights" in said
    )
    problems, fine = said.split("\nfine:\n")
    assert len(problems.splitlines()) == 4
    assert fine.startswith("  run folder")  # what is fine is still said


def test_a_problem_that_several_checks_meet_is_told_once(
    training: config.Train, tmp_path: Path
) -> None:
    nowhere = training.data.model_copy(update={"dataset": tmp_path / "nowhere"})
    with pytest.raises(UserError) as error:
        check_training(training.model_copy(update={"data": nowhere}), 1)
    assert str(error.value).count("nowhere is not a packed dataset") == 1
    assert "fine:\n  batches     8 a step = 1 processes" in str(error.value)


def test_the_manifest_is_read_once(training: config.Train, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(
        readiness, "read_manifest", lambda folder: read.append(folder) or read_manifest(folder)
    )
    monkeypatch.setattr("lens_hpc.dataset.columns.read_manifest", None)
    assert list(check_training(training, 1).found) == ["batches", "data", "model", "run folder"]
    assert read == [training.data.dataset]


def test_the_random_numbers_of_the_caller_stay(training: config.Train) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_training(training, 1)
    assert torch.equal(torch.rand(2), expected)


def test_the_job_is_read_from_its_script(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "job.sbatch"
    script.write_text(
        "#!/bin/bash\n#SBATCH --nodes=2\n#SBATCH --gpus-per-node=a100:4\necho --nodes=9\n"
    )
    call("check", config_file, f"sbatch={script}", "train.global_batch_size=16")
    assert "16 a step = 8 processes" in capsys.readouterr().out
    script.write_text("#!/bin/bash\n#SBATCH -N 2\n")
    with pytest.raises(UserError, match="no #SBATCH line asks for GPUs"):
        world_size_of(script)


def test_an_unknown_tracker_is_found(config_file: Path) -> None:
    with pytest.raises(UserError, match=r"train.trackers = \['tensorbord'\]: unknown"):
        call("check", config_file, "train.trackers=[tensorbord]")


def test_a_disk_without_room_is_found(config_file: Path) -> None:
    with pytest.raises(UserError, match=r"checkpoints need [\d,.]+ MB, its disk has"):
        call("check", config_file, "checkpoint.keep=100000000")


@pytest.mark.slow
def test_a_memory_estimate_grows_with_the_micro_batch(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def gigabytes(size: int) -> float:
        call("check", config_file, f"train.global_batch_size={size}", "data.last=keep")
        lines = capsys.readouterr().out.splitlines()
        line = next(line for line in lines if "million weights" in line)
        return float(line.split("about ")[1].split()[0])

    assert gigabytes(40_000) > 2.5 * gigabytes(10_000) > 0


def test_a_step_that_fails_in_training_is_not_ready(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cutouts of 8 x 8 px leave one position, over which BatchNorm cannot take a mean."""
    small = ("train.micro_batch_size=1", "data.workers=0", "train.epochs=1")
    for verb in ("check", "train"):
        with pytest.raises(UserError, match=r"Choose train.micro_batch_size=2 or more"):
            call(verb, config_file, *small)
    call("check", config_file, *small, "model.inputs=features", f"run={config_file.parent}/new")
    assert "training works in micro-batches of 1;" in capsys.readouterr().out


ENGINE = """
from lens_hpc.loading.augmentation_base import Augmentation


class Sharpen(Augmentation):
    def flip_and_blur(self, images, epoch, draws):
        images /= self.settings.sharpness
"""


def test_an_engine_of_ones_own_is_tried(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "enginepackage"
    package.mkdir()
    (package / "__init__.py").write_text(ENGINE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"the first cutouts cannot be loaded \(AttributeError"):
        call(
            "check",
            config_file,
            "augment.engine=enginepackage.Sharpen",
            "code=[enginepackage]",
        )
