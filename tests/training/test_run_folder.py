import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lens_hpc import config, files, layout
from lens_hpc import settings as reading
from lens_hpc.dataset.manifest import Manifest, read_manifest, read_run_manifest
from lens_hpc.describing import describe
from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.run_folder import (
    NOT_OF_THE_RUN,
    check_same_run,
    is_finished,
    open_run,
    with_keys_of_run,
)
from lens_hpc.training.trainer import Trainer, make_trainer


@pytest.fixture
def manifest(training: config.Train) -> Manifest:
    return read_manifest(training.data.dataset)


@pytest.fixture
def trainer(training: config.Train, manifest: Manifest) -> Iterator[Trainer]:
    with (
        accelerator_session(training) as accelerator,
        make_trainer(training, accelerator, manifest) as made,
    ):
        yield made


@pytest.fixture
def begun(training: config.Train, trainer: Trainer) -> config.Train:
    with open_run(trainer):
        pass
    return training


def test_a_run_is_begun_with_all_that_tells_it_again(
    training: config.Train, trainer: Trainer, manifest: Manifest
) -> None:
    handlers = list(logger.handlers)
    with open_run(trainer):
        logger.warning("something happened")
    logger.warning("too late")
    assert logger.handlers == handlers

    run = training.run
    assert reading.load(config.Train, run / layout.CONFIG) == training
    assert read_run_manifest(run) == manifest
    assert '"processes": 1' in (run / layout.ENVIRONMENT).read_text()
    log = layout.rank_log(run, 0).read_text()
    assert log.endswith("something happened\n")
    assert not is_finished(training)


def test_the_start_is_told(
    trainer: Trainer, training: config.Train, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger.name), open_run(trainer):
        pass
    assert f"{training.run}: fusion on 1 x cpu, 28 training rows, 3 steps an epoch" in caplog.text


def test_the_same_settings_and_those_that_do_not_matter_go_on(
    begun: config.Train, manifest: Manifest
) -> None:
    check_same_run(begun, manifest)
    tree = begun.model_dump()
    tree["data"]["workers"] = 7
    tree["checkpoint"]["keep"] = 9
    check_same_run(config.Train.model_validate(tree), manifest)


def test_every_setting_that_may_differ_exists() -> None:
    keys = {setting.key for setting in describe(config.Train)}
    assert keys >= NOT_OF_THE_RUN


def test_another_setting_is_refused_unless_it_is_allowed(
    begun: config.Train, manifest: Manifest
) -> None:
    optim = begun.optim.model_copy(update={"lr": 0.5})
    other = begun.model_copy(update={"optim": optim})
    with pytest.raises(UserError) as error:
        check_same_run(other, manifest)
    assert str(error.value) == (
        f"run = {begun.run}: was begun with other settings; name another run, or go on with these: "
        "resume.allow=[optim.lr]\n  optim.lr: 0.001 there, 0.5 here"
    )
    check_same_run(
        other.model_copy(update={"resume": config.Resume(allow=("optim.lr",))}), manifest
    )


def test_the_settings_to_allow_are_all_that_differ(begun: config.Train, manifest: Manifest) -> None:
    """The answer can be pasted: it has those that are allowed already, too."""
    optim = begun.optim.model_copy(update={"lr": 0.5})
    train = begun.train.model_copy(update={"epochs": 9})
    allow = config.Resume(allow=("optim.lr",))
    other = begun.model_copy(update={"optim": optim, "train": train, "resume": allow})
    with pytest.raises(
        UserError, match=r"resume\.allow=\[optim\.lr,train\.epochs\]\n  train"
    ) as error:
        check_same_run(other, manifest)
    assert "optim.lr: " not in str(error.value)


def test_what_has_finished_is_told_how_to_train_on(begun: config.Train, manifest: Manifest) -> None:
    (begun.run / layout.FINAL).mkdir()
    (begun.run / layout.FINAL / layout.WEIGHTS).touch()
    check_same_run(begun, manifest)
    train = begun.train.model_copy(update={"epochs": 9})
    other = begun.model_copy(update={"train": train})
    told = (
        f"run = {begun.run}: has finished with other settings; to train on from its weights, begin "
        f"another run: model.weights={begun.run} run=NEW\n"
        f"  train.epochs: {begun.train.epochs} there, 9 here"
    )
    for allow in ((), ("train.epochs",)):
        asked = other.model_copy(update={"resume": config.Resume(allow=allow)})
        with pytest.raises(UserError) as error:
            check_same_run(asked, manifest)
        assert str(error.value) == told


def test_another_dataset_is_refused(begun: config.Train, manifest: Manifest) -> None:
    with pytest.raises(UserError, match="is not the dataset that the run was begun with"):
        check_same_run(begun, manifest.model_copy(update={"seed": 9}))


def test_a_run_of_an_earlier_version_goes_on(begun: config.Train, manifest: Manifest) -> None:
    """Its config lacks what could not be set then."""
    file = begun.run / layout.CONFIG
    tree = yaml.safe_load(file.read_text())
    del tree["model"]["name"], tree["model"]["options"]
    file.write_text(yaml.safe_dump(tree))
    check_same_run(begun, manifest)


def test_a_run_of_an_earlier_version_goes_on_with_its_own_scaling(
    begun: config.Train, manifest: Manifest
) -> None:
    """As its config lacks the keys, and as the user's file does, their default is another now."""
    file = begun.run / layout.CONFIG
    tree = yaml.safe_load(file.read_text())
    for group, keys in config.OLDER_RUNS.items():
        for key in keys:
            del tree[group][key]
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=r"model\.feature_scaling: minmax there, robust here"):
        check_same_run(begun, manifest)
    with pytest.raises(UserError, match=r"loss\.soft_labels: False there, True here"):
        check_same_run(begun, manifest)

    going_on = with_keys_of_run(begun)
    assert going_on.model.model_dump().items() >= config.MODEL_OF_OLDER_RUNS.items()
    assert not going_on.loss.soft_labels
    check_same_run(going_on, manifest)
    said = begun.model.model_copy(update={"feature_scaling": "robust"})
    with pytest.raises(UserError, match=r"model\.feature_scaling: minmax there, robust here"):
        check_same_run(with_keys_of_run(begun.model_copy(update={"model": said})), manifest)


def test_a_new_run_has_todays_default(training: config.Train) -> None:
    assert with_keys_of_run(training) == training


def test_a_folder_of_something_else_is_refused(training: config.Train, manifest: Manifest) -> None:
    check_same_run(training, manifest)  # it is not there
    training.run.mkdir()
    (training.run / layout.LOGS).mkdir()
    for name in (layout.MANIFEST, layout.ENVIRONMENT, layout.CONFIG):
        files.own_partial(training.run / name).touch()
        check_same_run(training, manifest)  # a start that was killed
    (training.run / "thesis.tex").touch()
    with pytest.raises(UserError, match="the folder holds something else than a run"):
        check_same_run(training, manifest)


def test_a_run_that_another_job_begins_at_this_instant_is_no_other_thing(
    training: config.Train, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One who does not hold the folder looks twice, and between the looks a run may begin."""
    really_list = files.names_in

    def begin_and_list(folder: Path) -> set[str]:
        (folder / layout.CONFIG).touch()
        (folder / layout.CHECKPOINTS).mkdir()
        return really_list(folder)

    training.run.mkdir()
    monkeypatch.setattr(files, "names_in", begin_and_list)
    check_same_run(training, manifest)


def test_a_run_is_finished_when_it_has_final_weights(training: config.Train) -> None:
    final = training.run / layout.FINAL
    final.mkdir(parents=True)
    assert not is_finished(training)
    Path(final / layout.WEIGHTS).touch()
    assert is_finished(training)
