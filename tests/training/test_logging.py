import io
import json
import re
import resource

import numpy as np
import pytest
from rich.progress import Progress

from jaxcrop.crops import CROPS
from jaxcrop.errors import InputError
from jaxcrop.training import logging
from jaxcrop.training.logging import RunLog, sample_picture


def _log(folder, start=0, steps=20, **options):
    return RunLog(folder, start, steps, title="a run", settings={"seed": 1}, **options)


def _events(folder):
    """Step and tag of every value, read by TensorFlow's own record definition."""
    event_file = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted((folder / "tensorboard").glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            event = event_file.Event.FromString(data[at + 12 : at + 12 + length])
            found += [(event.step, value) for value in event.summary.value]
            at += 16 + length
    return found


def test_lines_and_scalars_of_a_run(tmp_path, capsys):
    with _log(tmp_path) as log:
        for step in range(1, 21):
            log.progress(step, 1 / step, 8)
        log.message("step 20: validated [bold]")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["train/loss"]) for row in rows] == [(k, 1 / k) for k in range(1, 21)]
    printed = capsys.readouterr().err.splitlines()
    kept = (tmp_path / "train.log").read_text().splitlines()
    assert len(printed) == 11
    assert printed[-1] == "step 20: validated [bold]"
    assert [line.split("  ", 1)[1] for line in kept] == printed
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  ", line) for line in kept)


def test_resuming_takes_back_later_steps_and_an_unfinished_line(tmp_path):
    with _log(tmp_path) as log:
        for step in (1, 2, 3):
            log.scalars(step, {"train/loss": float(step)})
        log.message("first")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "train')
    with _log(tmp_path, start=2) as log:
        log.scalars(3, {"train/loss": 30.0})
        log.message("second")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["train/loss"] for row in rows] == [1, 2, 30]
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["first", "second"]


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "train/loss": 2.0}\n\0\0\0\n')
    with pytest.raises(InputError, match=r"line 2 of .*metrics\.jsonl is damaged"):
        _log(tmp_path, start=1)


@pytest.mark.parametrize("kind", ["scalars", "pictures", "message"])
@pytest.mark.usefixtures("capsys")  # what is shown goes to no file
def test_a_full_disk(tmp_path, kind):
    """At each of many sizes of the log: a sentence, and what was written before can be resumed."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    picture = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    say = {
        "scalars": lambda log, step: log.scalars(step, {"train/loss": 1.0}),
        "pictures": lambda log, step: log.pictures(step, "validation/0", picture),
        "message": lambda log, step: log.message(f"step {step}"),
    }[kind]

    def fill(folder):
        with _log(folder) as log:
            log.scalars(1, {"train/loss": 1.0})
            log.scalars(2, {"train/loss": 1.0})
            for step in range(3, 1000):
                say(log, step)

    for number, largest in enumerate(range(300, 1300, 77)):
        folder = tmp_path / str(number)
        folder.mkdir()
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
        try:
            with pytest.raises(InputError, match=r"cannot be written \(File too large\): free"):
                fill(folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        with _log(folder, start=2) as log:
            log.scalars(3, {"train/loss": 1.0})
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert sorted({row["step"] for row in rows}) == [1, 2, 3]


def test_images_per_second_where_losses_arrive_together(tmp_path, monkeypatch):
    clock = iter([0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0])  # two steps at once, 2 s apart
    monkeypatch.setattr(logging.time, "perf_counter", lambda: next(clock))
    with _log(tmp_path) as log:
        for step in (1, 2, 3, 4):
            log.progress(step, 1.0, 8)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = [row.get("train/images_per_second") for row in rows]
    assert rates == [None, None, 8.0, 8.0]


def test_bar_on_a_terminal(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    drawn = []
    update = Progress.update
    monkeypatch.setattr(
        Progress,
        "update",
        lambda self, task, **values: (drawn.append(values), update(self, task, **values)),
    )
    with _log(tmp_path) as log:
        log.progress(1, 0.5, 8)
        log.message("step 1: validation loss 0.25")
    assert [values["completed"] for values in drawn] == [1]
    assert "step 1/20  loss 0.5000" in terminal.getvalue()
    assert "step 1: validation loss 0.25" in terminal.getvalue()
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is back
    assert "validation loss 0.25" in (tmp_path / "train.log").read_text()


def test_other_processes_write_nothing(tmp_path, capsys):
    with _log(tmp_path, writes=False, trackers=("wandb",)) as log:
        log.scalars(1, {"train/loss": 1.0})
        log.progress(1, 1.0, 8)
        log.message("hello")
        log.pictures(1, "chip", np.zeros((2, 2, 3), np.uint8))
    assert not list(tmp_path.iterdir())
    assert not capsys.readouterr().err


def test_tensorboard_holds_scalars_and_pictures(tmp_path):
    picture = np.zeros((5, 7, 3), np.uint8)
    with _log(tmp_path) as log:
        log.scalars(4, {"validation/loss": 0.5})
        log.pictures(4, "validation/0", picture)
    values = {value.tag: (step, value) for step, value in _events(tmp_path)}
    step, scalar = values["validation/loss"]
    assert (step, scalar.simple_value) == (4, 0.5)
    step, shown = values["validation/0"]
    assert (step, shown.image.height, shown.image.width) == (4, 5, 7)


def test_a_missing_library_leaves_no_log_behind(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(InputError, match=r"pip install 'jaxcrop\[mlflow\]'"):
        RunLog(tmp_path, 0, 1, title="", settings={}, trackers=("mlflow",))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_sample_picture():
    label = np.array([[0, 1], [2, 3]])
    prediction = np.array([[1, 1], [4, 5]])
    image = np.zeros((2, 2, 3), np.uint16)
    image[..., 2] = [[1000, 3000], [1000, 3000]]  # B04: red
    image[..., 0] = image[..., 1] = 500
    picture = sample_picture(image, ("B02", "B03", "B04"), label, prediction)
    assert picture.shape == (2, 2 * 3 + 2 * 4, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:, :2], [[[0, 0, 0], [255, 0, 0]]] * 2)
    assert not picture[:, 2:6].any()
    white, rgb = (255, 255, 255), [crop.rgb for crop in CROPS]
    np.testing.assert_array_equal(picture[:, 6:8], [[white, rgb[1]], [rgb[2], rgb[3]]])
    np.testing.assert_array_equal(picture[:, 12:], [[rgb[1], rgb[1]], [rgb[4], rgb[5]]])
