"""What is told while a run trains, of its losses and of each epoch: to the user and to trackers."""

import torch

from lens_hpc.logs import logger
from lens_hpc.progress import Progress
from lens_hpc.training.best import LOSS, RECORDED, TITLES
from lens_hpc.training.losses import SentLosses, receive_losses, send_losses
from lens_hpc.training.metrics_log import EpochFacts, append_to_metrics_log
from lens_hpc.training.session import EpochClock, TrainingSession

SHOWN_WAITING = 0.005  # a smaller share of the time is not worth a word


def look_at_losses(
    session: TrainingSession, clock: EpochClock, progress: Progress, must_know: bool
) -> None:
    """Tell the losses that were sent to the host at the last look, and send those since.

    With `must_know`, or on the CPU, the latter are waited for and told, too. All processes must
    call it. Raises UserError when a loss is not a finite number.
    """
    trainer = session.trainer
    if session.sent:
        tell_losses(session, session.sent, clock, progress)

    session.sent = send_losses(trainer, session.recent, session.state.step)
    session.recent = []
    if must_know or session.sent.arrived is None:
        tell_losses(session, session.sent, clock, progress)
        session.sent = None


def tell_losses(
    session: TrainingSession, sent: SentLosses, clock: EpochClock, progress: Progress
) -> None:
    """Add losses to the epoch's sum, and tell the last."""
    trainer = session.trainer
    losses = receive_losses(trainer, sent)
    session.state.loss_sum += sum(losses)
    waiting = clock.seconds_waited() / clock.seconds()

    with clock.spending_on("logging"):
        loss, step, rate = losses[-1], sent.last_step, sent.rate
        shown = {"loss": f"{loss:.4f}", "lr": f"{rate:.2e}", "step": f"{step}"}
        if waiting > SHOWN_WAITING:
            shown["wait"] = f"{waiting:.0%}"

        device = trainer.accelerator.device
        gpu_bytes = None
        if device.type == "cuda":
            gpu_bytes = torch.cuda.max_memory_allocated(device)
            shown["memory"] = f"{gpu_bytes / 1e9:.1f}GB"
        session.trackers.tell_step(step, loss, rate, gpu_bytes)
        progress.update(0, **shown)


def epoch_facts(
    session: TrainingSession, epoch: int, samples: int, clock: EpochClock
) -> EpochFacts:
    """Return what to record of an epoch that was trained, but not yet validated."""
    seconds = clock.seconds()
    facts = {
        "epoch": epoch + 1,
        "step": session.state.step,
        "loss": session.state.loss_sum / session.trainer.order.steps,
        "lr": session.trainer.rate.now(),
        "seconds": seconds,
        "cutouts_per_second": samples / seconds,
        "waiting_for_data": clock.seconds_waited() / seconds,
    }
    for purpose, spent in clock.spent().items():
        facts[purpose] = spent / seconds
    return facts


def record_epoch(session: TrainingSession, facts: EpochFacts, is_best: bool) -> None:
    """Write what is known of an epoch to metrics.jsonl, the trackers and the log.

    `is_best` says whether its weights are the best so far. The first process alone does it.
    """
    trainer = session.trainer
    if not trainer.accelerator.is_main_process:
        return

    append_to_metrics_log(trainer.settings.run, facts)
    session.trackers.tell_epoch(facts)
    # The number that chooses the best weights is shown beside the usual two.
    shown = dict.fromkeys([LOSS, "auc", trainer.settings.train.best])
    validation = [f"val {TITLES[name]} {facts[RECORDED + name]:.4f}" for name in shown]
    logger.info(
        "epoch %d  loss %.4f  %s%s  lr %.2e  %.0f cutouts/s, %.0f%% waiting for data",
        facts["epoch"],
        facts["loss"],
        "  ".join(validation),
        "  (best so far)" if is_best else "",
        facts["lr"],
        facts["cutouts_per_second"],
        100 * facts["waiting_for_data"],
    )
