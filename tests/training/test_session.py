import time
from types import SimpleNamespace
from typing import Any

import pytest

from lens_hpc import config
from lens_hpc.training import session as room
from lens_hpc.training.checkpoints import TrainingState
from lens_hpc.training.session import EpochClock, StopAgreed, TrainingSession
from lens_hpc.training.signals import Agreement


def make_session(deadline: float = float("inf"), **checkpoint: Any) -> Any:
    """One process, ten steps an epoch."""
    trainer = SimpleNamespace(
        settings=SimpleNamespace(checkpoint=config.Checkpoint(**checkpoint)),
        order=SimpleNamespace(steps=10),
    )
    alone: Any = SimpleNamespace(process_index=0, num_processes=1)
    request = SimpleNamespace(requested=False, obeyed_times=0)

    def obeyed() -> None:
        request.obeyed_times += 1

    request.obeyed = obeyed
    state = TrainingState(step=23, epochs_done=2)
    untyped: Any = (trainer, state, None, Agreement(alone, 1.0), request, deadline)
    return TrainingSession(*untyped)


def decide(session: TrainingSession) -> tuple[bool, bool]:
    session.submit_wishes()
    return session.decision()


def test_the_steps_of_the_present_epoch_are_counted() -> None:
    assert make_session().steps_into_epoch == 3


def test_a_checkpoint_follows_every_nth_step_or_some_minutes() -> None:
    assert decide(make_session()) == (False, False)
    assert decide(make_session(every_steps=8)) == (False, True)  # the 24th step begins
    assert decide(make_session(every_steps=7)) == (False, False)
    late = make_session(every_minutes=1.0)
    late.saved_at = time.monotonic() - 61
    assert decide(late) == (False, True)


def test_a_request_is_obeyed_when_all_have_agreed() -> None:
    """Until then, the process may wait in vain for another one, and SIGTERM must end it."""
    session = make_session()
    session.request.requested = True
    answers: Any = SimpleNamespace(
        is_of_one=False, submit=lambda *_: None, result=lambda: [1.0, 0.0]
    )
    session.agreement = answers
    session.submit_wishes()
    assert session.request.obeyed_times == 0
    assert session.decision() == (True, False)
    assert session.request.obeyed_times == 1

    answers.result = lambda: [1.0]
    with pytest.raises(StopAgreed):
        session.stop_if_requested()
    assert session.request.obeyed_times == 2


def test_alone_a_request_is_obeyed_at_once() -> None:
    session = make_session()
    session.request.requested = True
    session.submit_wishes()
    assert session.request.obeyed_times == 1


def test_a_request_or_the_deadline_stops() -> None:
    session = make_session()
    session.request.requested = True
    assert decide(session) == (True, False)
    assert decide(make_session(deadline=time.time() - 1)) == (True, False)


def test_a_request_stops_a_validation_and_the_deadline_does_not() -> None:
    session = make_session(deadline=time.time() - 1)
    session.stop_if_requested()
    session.request.requested = True
    with pytest.raises(StopAgreed):
        session.stop_if_requested()


def test_the_first_process_alone_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    session = make_session()
    session.checkpoints = SimpleNamespace(write=lambda *what: written.append(what))
    session.saved_at = 0.0
    monkeypatch.setattr(room, "capture_state", lambda trainer, state: None)
    session.save()
    assert written == []
    monkeypatch.setattr(room, "capture_state", lambda trainer, state: {"place": state.step})
    session.save()
    assert written == [(23, {"place": 23})]
    assert time.monotonic() - session.saved_at < 60


def test_the_time_of_an_epoch_is_told_apart() -> None:
    loader: Any = SimpleNamespace(waited=5.0)
    clock = EpochClock(loader)
    loader.waited = 5.5
    with clock.spending_on("saving"):
        time.sleep(0.02)
    assert clock.seconds_waited() == 0.5
    assert 0.02 <= clock.spent()["saving"] <= clock.seconds()
    assert clock.spent()["logging"] == 0
