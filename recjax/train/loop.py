"""The training loop."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from recjax import config as configs
from recjax.config import RunConfig
from recjax.nn.groups import split_frozen
from recjax.parallel.processes import barrier
from recjax.track.console import Reporter
from recjax.track.goodput import Goodput
from recjax.track.machine import processor
from recjax.track.metrics import MetricLog
from recjax.track.model_table import model_lines
from recjax.track.plots import plot_curves
from recjax.train.encoder_task import open_encoder_task
from recjax.train.errors import TrainingError
from recjax.train.folder import run_folder
from recjax.train.folder.checkpoint import Checkpoints
from recjax.train.folder.lock import Lock
from recjax.train.folder.progress import Progress
from recjax.train.folder.recovery import damaged_records, first_sound
from recjax.train.folder.starts import add_start
from recjax.train.interrupt import Interrupt
from recjax.train.leaving import leave
from recjax.train.programs import Alike, programs_of
from recjax.train.refresh import Refresher
from recjax.train.schedule import Calendar, Train
from recjax.train.stages import Part, parts, resolved
from recjax.train.state import TrainState, overlaid
from recjax.train.step import TrainStep
from recjax.train.step_log import Journal, NonFiniteError
from recjax.train.task import Task, open_task
from recjax.train.warm_start import KnownItems, StartingPoint, has_checkpoint, starting_point
from recjax.typing import DATA_AXIS, InputError

NEWER = ". Give the run another folder; with train.start_from it begins there with what this one has learned"

__all__ = ["Result", "Train", "TrainingError", "fit"]


@dataclass(frozen=True)
class Result:
    """Outcome of a run.

    Attributes:
        step: steps taken; of a run of stages, those of the stage in which it ended.
        total: steps that this was to take.
        best_step: step of the best validation, or None without validation.
        best_value: the validation metric there.
        preempted: a signal ended it; calling again resumes.
        stopped: why it ended before `total` otherwise, or None.
    """

    step: int
    total: int
    best_step: int | None
    best_value: float | None
    preempted: bool
    stopped: str | None


def fit(config: RunConfig, run_dir: Path, task: Task | None = None) -> Result:
    """Trains, or resumes training, in a run folder.

    Args:
        config: of the run; its stages, runs of their own inside the folder, come first.
        run_dir: its folder; made if absent. Where it has checkpoints, training resumes after the latest.
        task: what to train, by default what `config` says; stages always train what theirs say.

    Raises:
        InputError: the folder belongs to another configuration or dataset, or a setting cannot be.
        TrainingError: the loss or the gradient was infinite or not a number.
    """
    *stages, last = whole = parts(config, run_dir)
    if stages:
        run_folder.check_config(run_dir, config, longer=True)
    reached = max((number for number, part in enumerate(whole) if has_checkpoint(part.folder)), default=0)
    for stage in stages[reached:]:
        result = _fit(stage, None)
        if result.preempted:
            return result
    return _fit(last, task)


def _fit(part: Part, task: Task | None) -> Result:
    """Trains one of the runs that make a run of stages."""
    config, run_dir = part.config, part.folder
    goodput, mesh = Goodput(), config.mesh.build()
    with jax.set_mesh(mesh), Interrupt() as interrupt, Lock(run_dir), run_folder.written(run_dir), ExitStack() as stack:
        # --- what to train, and how far it is
        longer = run_folder.check_config(run_dir, config, longer=True)
        source = starting_point(config, run_dir, part.origin)
        if source is not None:
            source.adopt_features(config, run_dir)
        task = task or _open(part)
        barrier("data prepared")  # from here on processes meet on the devices, where none is named
        calendar = _calendar(config.train, task)
        refresher = Refresher(task, config.train.freeze)
        known = None if source is None else source.known_items(config, task)
        checkpoints = stack.enter_context(Checkpoints(run_dir / run_folder.CHECKPOINTS, config.train.keep))

        # --- the state and the step
        beginning, train_step = _prepare(config, run_dir, task, calendar.total, mesh, checkpoints, source, known)
        start, state, progress = beginning.step, beginning.state, beginning.progress
        progress.reconsider(config.train.patience)
        if task.shares is not None:
            task.shares.resume(progress)
        run_folder.claim(run_dir, config)
        if task.keep is not None and not part.title:
            task.keep(run_dir)
        task = replace(task, keep=None)  # lets go of what it holds on the host

        # --- what the user sees
        reporter, journal = _open_journal(stack, part, beginning, calendar, mesh, goodput)
        notes = [f"{line}: from here on the learning rate is that of the longer run" for line in longer]
        notes += [] if known is None else [known.line()]
        _announce(reporter, task, mesh, beginning, calendar, source, config.train.freeze, notes)

        # --- steps
        interrupt.armed = True
        step, preempted = start, interrupt.requested(start)
        batches = task.loader.iterate(start, calendar.total)
        goodput.spent("init")
        while step < calendar.total and not (progress.stopped or preempted):
            if calendar.refreshes(step):
                state = refresher(state, step)
                goodput.spent("refresh")
                journal.restart()
            if task.shares is not None and calendar.weighs(step):
                journal.weighed(step, task.shares.update(state.params, step, progress))
                goodput.spent("refresh")
                journal.restart()
            with jax.transfer_guard("disallow"), _diverging(checkpoints):
                with journal.waiting():
                    batch = next(batches)
                state, sums = train_step(state, batch, task.items[task.loader.catalog(step)])
                step += 1
                preempted = interrupt.requested(step)
                due = preempted or calendar.anything(step)
                journal.push(step, sums, last=due)
            if not due:
                continue
            goodput.spent("step")
            if calendar.validates(step) and task.validate is not None:
                with reporter.aside():
                    metrics = task.validate(state.evaluated)
                better = progress.validated(step, metrics, config.train.metric, config.train.patience)
                journal.validated(step, metrics, config.train.metric, better)
                goodput.spent("evaluation")
            if preempted or calendar.saves(step) or progress.stopped or progress.best_step == step:
                checkpoints.save(step, state, _record(config, task, progress), progress.best_step)
                goodput.spent("checkpoint")
            journal.account(step)
            journal.restart()

        # --- the end
        checkpoints.wait()
        goodput.spent("checkpoint")
        if step > start:
            journal.account(step)
        done = step == calendar.total or progress.stopped is not None
        if done and jax.process_index() == 0:
            plot_curves(run_dir)
        if done and task.finish is not None:
            task.finish(run_dir)
        result = Result(step, calendar.total, progress.best_step, progress.best_value, not done, progress.stopped)
        reporter.line(_farewell(result, config.train.metric))
        reporter.line(goodput.line())
        return result


def _open(part: Part) -> Task:
    config = resolved(part.config, part.folder)
    if part.title and not config.model.ranks:  # a stage may train an encoder that the run reads texts by
        return open_encoder_task(config)
    task = open_task(config, part.folder)
    return replace(task, finish=partial(leave, config)) if config.model.leaves_files else task


def _calendar(train: Train, task: Task) -> Calendar:
    epoch = task.loader.steps(1)
    total = train.task_steps or task.loader.steps(train.epochs or 0)
    weigh = 0 if task.shares is None else task.shares.every
    return Calendar.of(train, total, epoch, task.validate is not None, task.model.refresh_every, weigh)


@dataclass(frozen=True)
class _Beginning:
    """Starting point of a run: its beginning, or the checkpoint that it resumes from.

    Attributes:
        state: of the arrays.
        step: steps taken.
        progress: so far.
        notes: what the user should know of how it was found.
    """

    state: TrainState
    step: int = 0
    progress: Progress = field(default_factory=Progress)
    notes: tuple[str, ...] = ()


def _prepare(
    config: RunConfig,
    run_dir: Path,
    task: Task,
    total: int,
    mesh: Mesh,
    checkpoints: Checkpoints,
    source: StartingPoint | None,
    known: KnownItems | None,
) -> tuple[_Beginning, TrainStep]:
    """The state, fresh, of another run or of the latest sound checkpoint, laid out by the model's rules; the step."""
    programs = programs_of(Alike.of(config, task.model, total, mesh))
    key, batch, items = jax.random.key(config.seed), task.loader.batch(0), task.items[task.loader.catalog(0)]
    check_parts(batch.items.shape[0], config.train.parts, mesh)
    target = programs.target(key, batch, items, task.params)
    if steps := checkpoints.agreed_steps():
        beginning = _resume(run_dir, task, checkpoints, steps, target)
    else:
        places = {path: leaf.sharding for path, leaf in jax.tree.leaves_with_path(target.params)}
        held = jax.tree.map_with_path(lambda path, leaf: jax.device_put(leaf, places[path]), task.params)
        if source is not None:
            held = overlaid(held, source.params(target.params, task.model.per_item, known))
        beginning = _Beginning(programs.start(target)(key, batch, items, held))
    step = programs.step(target)
    return beginning, step


def _resume(run_dir: Path, task: Task, checkpoints: Checkpoints, steps: list[int], target: TrainState) -> _Beginning:
    """The latest checkpoint that is as it was saved; damaged ones are set aside."""

    def read(step: int) -> tuple[Progress, TrainState]:
        record = checkpoints.record(step)
        run_folder.check_dataset(run_dir, record, task.dataset, task.fingerprint, NEWER)
        return Progress(**record["progress"]), checkpoints.restore(step, target)

    step, (progress, state), damaged = first_sound(reversed(steps), read)
    damaged += damaged_records(steps[: steps.index(step)], checkpoints.record)  # Orbax reads them before it saves
    notes = [f"{error}; set aside as {checkpoints.set_aside(error.step)}" for error in damaged]
    return _Beginning(state, step, progress, (*notes, f"resumes from the checkpoint of step {step}"))


def check_parts(rows: int, accumulate: int, mesh: Mesh) -> None:
    """Raises InputError where a batch cannot be split into so many parts on the mesh."""
    devices = mesh.shape[DATA_AXIS]
    if rows % (accumulate * devices):
        raise InputError(
            f"a batch of {rows} rows cannot be split into train.accumulate = {accumulate} parts on a data axis of "
            f"{devices} devices; a multiple of {accumulate * devices} rows can"
        )


def _record(config: RunConfig, task: Task, progress: Progress) -> dict[str, Any]:
    """Record that is saved beside the arrays."""
    return {
        "config": configs.to_json(config),
        "dataset": {"name": task.dataset, "fingerprint": task.fingerprint},
        "progress": progress.to_json(),
    }


@contextmanager
def _diverging(checkpoints: Checkpoints) -> Iterator[None]:
    """Turns a step that was not finite into the end of the run, with the last good checkpoint complete."""
    try:
        yield
    except NonFiniteError as error:
        checkpoints.wait()
        good = checkpoints.latest
        kept = "there is no checkpoint before it" if good is None else f"the checkpoint of step {good} is kept"
        raise TrainingError(
            f"step {error.step}: the loss is {error.loss:g} and the gradient's norm {error.norm:g}, so the run stops; "
            f"{kept}. A lower optim.learning_rate, optim.clip or a warm-up may help; they need another run folder"
        ) from None


def _open_journal(
    stack: ExitStack, part: Part, beginning: _Beginning, calendar: Calendar, mesh: Mesh, goodput: Goodput
) -> tuple[Reporter, Journal]:
    """Console and log of the run, which the first process alone writes; the start is recorded."""
    main, start = jax.process_index() == 0, beginning.step
    reporter = stack.enter_context(Reporter(calendar.total, start, silent=not main))
    if main:
        goodput.resume(part.folder, start)
        if start < calendar.total:
            add_start(part.folder, start, f"{_devices(mesh)}; host: {processor()}")
    log = stack.enter_context(MetricLog(part.folder, start)) if main else None
    if part.title:
        reporter.line(part.title)
    return reporter, Journal(beginning.progress, calendar, log, reporter, goodput)


def _announce(
    reporter: Reporter,
    task: Task,
    mesh: Mesh,
    beginning: _Beginning,
    calendar: Calendar,
    source: StartingPoint | None,
    freeze: tuple[str, ...],
    notes: list[str],
) -> None:
    shape = ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    for line in model_lines(beginning.state.params):
        reporter.line(line)
    if frozen := sum(leaf.size for leaf in jax.tree.leaves(split_frozen(beginning.state.params, freeze)[1])):
        reporter.line(f"{frozen:,} of these parameters are frozen")
    without = f" without {task.left_out:,} items that have no event" if task.left_out else ""
    reporter.line(f"dataset {task.dataset}{without} ({task.fingerprint[:12]})")
    reporter.line(f"{_devices(mesh)}, mesh {shape}; {calendar.total} steps, {_every(calendar)}")
    if source is not None:
        reporter.line(f"starts from the parameters of {source.run_dir} at step {source.step}")
    for note in (*beginning.notes, *notes):
        reporter.line(note)
    if beginning.step < calendar.total and beginning.progress.stopped is None:
        reporter.doing("compiling the step…")


def _devices(mesh: Mesh) -> str:
    return f"{mesh.size} x {mesh.devices.flat[0].device_kind}"


def _every(calendar: Calendar) -> str:
    validation = f"validation every {calendar.evaluate_every}" if calendar.evaluate_every else "no validation"
    refresh = f", refresh every {calendar.refresh_every}" if calendar.refresh_every else ""
    return f"{validation}, checkpoint every {calendar.save_every}{refresh}"


def _farewell(result: Result, metric: str) -> str:
    if result.preempted:
        saved = "saved" if result.step else "nothing to save"
        return f"stopped by a signal after step {result.step} of {result.total}, {saved}; the same command resumes"
    ended = f"trained {result.step} steps"
    if result.stopped:
        ended += f" of {result.total}: {result.stopped} (a larger train.patience lets it go on)"
    best = "" if result.best_value is None else f"; best {metric} {result.best_value:.4f} at step {result.best_step}"
    return ended + best
