import subprocess
import sys

import pytest
from made_up_results import made_up_cells, write_made_up_sweep

from jaxcrop.report import main


def test_the_report_lies_in_the_sweep_unless_told_otherwise(tmp_path, capsys):
    cells = made_up_cells(("africa",), ("satlas",), (("id", 10),), seeds=1)
    folder = write_made_up_sweep(tmp_path / "study", cells, chips=4)
    main([str(folder)])
    assert (folder / "report" / "report.html").stat().st_size > 50_000
    assert capsys.readouterr().out == (
        f"written to {folder / 'report'}: report.html, figures/, tables/\n"
    )
    left = [path for path in (folder / "report").rglob("*") if path.name.startswith(".")]
    assert not left


@pytest.mark.parametrize("make", ["nothing", "file"])
def test_bad_input_is_one_sentence(tmp_path, capsys, make):
    folder = tmp_path / "sweep"
    arguments = [str(folder)]
    if make == "file":  # in the way of the report
        cells = made_up_cells(("africa",), ("satlas",), (("id", 10),), seeds=1)
        write_made_up_sweep(folder, cells, chips=4)
        (tmp_path / "out").write_text("")
        arguments += ["--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_help_needs_no_heavy_import():
    code = (
        "import sys\n"
        "for name in ('jax', 'matplotlib', 'pyarrow', 'scipy', 'rasterio', 'jinja2'):\n"
        "    sys.modules[name] = None\n"
        "from jaxcrop.__main__ import main\n"
        "sys.argv = ['jaxcrop', 'report', '--help']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "one page" in " ".join(done.stdout.split())


def test_the_report_needs_no_jax():
    code = "import sys; sys.modules['jax'] = None; import jaxcrop.reports.write"
    subprocess.run([sys.executable, "-c", code], check=True)
