"""`python -m jaxcrop.sweep STUDY`: compute what a study lacks; `status` says how far it is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jaxcrop.cli import exit_on_input_error
from jaxcrop.errors import InputError

if TYPE_CHECKING:
    from jaxcrop.sweeps.folder import SweepFolder
    from jaxcrop.sweeps.study import Study


@dataclass(frozen=True)
class SweepConfig:
    """Compute the cells of a study that are missing; `python -m jaxcrop.sweep status STUDY` shows
    how far it is.

    Any number of processes, on one machine or several, may be given the same study and folder: none
    computes what another has.
    """

    study: Annotated[Path, tyro.conf.Positional]
    """Study file: see docs/sweeps.md, and experiments/paper for the paper's."""
    out: Path | None = None
    """Folder of the sweep (default: sweeps/ and the name of the study file)."""
    data_dir: Path | None = None
    """Folder of the built records (default: $JAXCROP_DATA_DIR, else ~/.cache/jaxcrop/data)."""
    features: Path | None = None
    """Folder that keeps the features of frozen backbones (default: `features` in the cache)."""
    workers: int = 1
    """Processes; each gets an accelerator of its own, where there are several, in turn."""
    retry: bool = False
    """Try the cells in quarantine again."""
    dry_run: bool = False
    """Print the cells, in order, how long they should take, and what disk their features need;
    compute nothing."""


@dataclass(frozen=True)
class StatusConfig:
    """Show how far a sweep is, until it is done or the keyboard interrupts."""

    study: Annotated[Path, tyro.conf.Positional]
    """Study file."""
    out: Path | None = None
    """Folder of the sweep (default: sweeps/ and the name of the study file)."""
    once: bool = False
    """Print once."""


def main(argv: Sequence[str] | None = None) -> None:
    """Sweep, or show the status, as the arguments say; exit code 1 where cells have failed."""
    argv = list(sys.argv[1:] if argv is None else argv)
    with exit_on_input_error():
        if argv[:1] == ["status"]:
            config = tyro.cli(StatusConfig, args=argv[1:], prog="python -m jaxcrop.sweep status")
            _status(config)
            return
        config = tyro.cli(SweepConfig, args=argv, prog="python -m jaxcrop.sweep")
        if config.workers < 1:
            raise InputError(f"--workers must be at least 1, not {config.workers}")
        sys.exit(_sweep(config, argv))


def _sweep(config: SweepConfig, argv: Sequence[str]) -> int:
    study, folder = _opened(config.study, config.out)
    if config.dry_run:
        _print_plan(study, folder, config.data_dir)
        return 0
    folder.begin(study)
    if config.retry:
        folder.release(study.cells)
    if config.workers > 1:
        return _spawn(config.workers, [word for word in argv if word != "--retry"])

    # Heavy imports wait until the study is known to be right.
    from jaxcrop.config import DeviceConfig  # noqa: PLC0415
    from jaxcrop.features.store import FeatureStore  # noqa: PLC0415
    from jaxcrop.mesh import prepare_devices  # noqa: PLC0415
    from jaxcrop.sweeps.worker import Worker, missing  # noqa: PLC0415
    from jaxcrop.training.logging import progress_line  # noqa: PLC0415
    from jaxcrop.training.preemption import preemptible  # noqa: PLC0415

    lacking = missing(study, config.data_dir)
    if lacking:
        raise InputError(f"missing: {' and '.join(lacking)}")
    prepare_devices(DeviceConfig())
    store = FeatureStore(config.features) if config.features else FeatureStore.default()
    worker = Worker(
        study,
        folder,
        config.data_dir,
        store,
        say=lambda text: print(text, flush=True),
        hint=lambda text: progress_line(text, last=False),
    )
    with preemptible():
        tally = worker.work()
    print(
        f"{tally.done} cells computed, {tally.failed} failed, {tally.elsewhere} with other "
        f"processes; {len(folder.open_cells(study.cells))} of {len(study.cells)} are open"
    )
    if any(folder.has_failed(cell) for cell in study.cells):
        print(f"what went wrong is in {folder.path / 'failures'}; --retry tries again")
        return 1
    return 0


def _opened(study: Path, out: Path | None) -> "tuple[Study, SweepFolder]":
    from jaxcrop.sweeps.folder import SweepFolder  # noqa: PLC0415
    from jaxcrop.sweeps.study import read_study  # noqa: PLC0415

    return read_study(study), SweepFolder(out or Path("sweeps") / study.stem)


def _print_plan(study: "Study", folder: "SweepFolder", data_dir: Path | None) -> None:
    from jaxcrop.sweeps.expected import expected_seconds  # noqa: PLC0415
    from jaxcrop.sweeps.study import config_of  # noqa: PLC0415
    from jaxcrop.sweeps.worker import feature_bytes, missing, training_chips  # noqa: PLC0415

    open_cells = folder.open_cells(study.cells)
    print(f"{study.title}: {len(study.cells)} cells, {len(open_cells)} to compute")
    lacking = missing(study, data_dir)
    configs = {c.key: config_of(c, data_dir=data_dir, run_dir=None) for c in study.cells}
    seconds = {}
    if not lacking:
        finished = [folder.result(cell) for cell in study.cells if folder.is_done(cell)]
        seconds = expected_seconds(study.cells, configs, training_chips, finished)
    for cell in study.cells:
        state = "done" if folder.is_done(cell) else "failed" if folder.has_failed(cell) else ""
        about = f"{seconds[cell.key]:8.0f} s" if seconds else " " * 10
        print(f"{about}  {state:<7} {cell.part}: {cell}")
    if seconds:
        total = sum(seconds[cell.key] for cell in open_cells)
        print(f"expected: {_hours(total)} in one process")
        if space := feature_bytes(study, data_dir):
            print(f"features: up to {space / 1e9:.1f} GB where they are kept (--features)")
    for sentence in lacking:
        print(f"missing: {sentence}")


def _spawn(workers: int, argv: Sequence[str]) -> int:
    """Run as many processes of one worker each; a SIGTERM is passed on to them."""
    argv = _without(argv, "--workers")
    devices, cores = _accelerators(), sorted(os.sched_getaffinity(0))
    processes = []
    for number in range(workers):
        environment = dict(os.environ)
        if devices:
            environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
        os.sched_setaffinity(0, cores[number % len(cores) :: workers])  # a process inherits it
        command = [sys.executable, "-m", "jaxcrop.sweep", *argv]
        processes.append(subprocess.Popen(command, env=environment))
    os.sched_setaffinity(0, cores)

    def pass_on(number, frame) -> None:
        for process in processes:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    return max((process.wait() for process in processes), key=abs)


def _accelerators() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA knows them by."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    names = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(names, key=int)


def _without(argv: Sequence[str], option: str) -> list[str]:
    at = list(argv).index(option)
    return [*argv[:at], *argv[at + 2 :]]


def _status(config: StatusConfig) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    study, folder = _opened(config.study, config.out)
    if config.once:
        Console().print(_table(study, folder))
        return
    try:
        with Live(_table(study, folder), auto_refresh=False) as live:
            while folder.open_cells(study.cells):
                time.sleep(2)
                live.update(_table(study, folder), refresh=True)
    except KeyboardInterrupt:
        return


def _table(study: "Study", folder: "SweepFolder"):
    """Done, running, failed and open cells of each part and region."""
    from rich.table import Table  # noqa: PLC0415

    running = {
        cell.key
        for cells in study.groups()
        if folder.open_cells(cells) and folder.is_claimed(cells)
        for cell in cells
    }
    rows: dict[tuple[str, str], list[int]] = {}
    for cell in study.cells:
        row = rows.setdefault((cell.part, cell.region), [0, 0, 0, 0])
        if folder.is_done(cell):
            row[0] += 1
        elif folder.has_failed(cell):
            row[2] += 1
        else:
            row[1 if cell.key in running else 3] += 1
    table = Table(title=f"{study.title}: {folder.path}")
    for name in ("part", "region", "done", "running", "failed", "open"):
        table.add_column(name, justify="left" if name in ("part", "region") else "right")
    for (part, region), counts in rows.items():
        table.add_row(part, region, *(str(count or "") for count in counts))
    table.add_section()
    table.add_row("", "all", *(str(sum(column)) for column in zip(*rows.values(), strict=True)))
    return table


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


if __name__ == "__main__":
    main()
