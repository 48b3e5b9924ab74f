"""What every command has in common: help, version, one-line errors and exit codes."""

import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import skpt
from skpt.cli import main
from skpt.exceptions import InvalidInputError, SkptError
from tests.discovery import ROOT


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--help"])
    assert re.search(r"^ +compare +cross-validate", capsys.readouterr().out, re.MULTILINE)


def test_help_of_a_command_names_every_option(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["compare", "--help"])
    said = capsys.readouterr().out
    for option in ["FILE", "--target", "--task", "--cv", "--out", "--seed", "python -m skpt compare houses.csv"]:
        assert option in said


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out in (f"skpt {skpt.__version__}\n", "skpt (not installed)\n")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "skpt: error: the following arguments are required: command (see python -m skpt --help)"),
        (["contrast"], "skpt: error: argument command: invalid choice: 'contrast'"),
        (["compare", "--task", "clustering"], "skpt compare: error: argument --task: invalid choice: 'clustering'"),
        (["compare", "--cv", "1"], "skpt compare: error: argument --cv: must be a whole number of at least 2. Got '1'"),
        (["compare", "--cv", "five"], "skpt compare: error: argument --cv: must be a whole number of at least 2."),
        (["compare", "--seed", "-1"], "skpt compare: error: argument --seed: must be a whole number of at least 0."),
        (["compare", "--seed", str(2**32)], "skpt compare: error: argument --seed: must be"),
        (["compare", "a.csv", "b.csv"], "skpt: error: unrecognized arguments: b.csv"),
    ],
)
def test_arguments_that_cannot_be_read_are_one_line_and_exit_code_2(argv, said, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        main(argv)
    shown = capsys.readouterr()
    assert shown.err.startswith(said)
    assert shown.err.count("\n") == 1
    assert not shown.out


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InvalidInputError("that file\nis of no use"), 2, "skpt compare: error: that file is of no use\n"),
        (SkptError("it went wrong"), 1, "skpt compare: error: it went wrong\n"),
        (OSError(28, "No space left on device"), 1, "skpt compare: error: [Errno 28] No space left on device\n"),
        (KeyboardInterrupt(), 130, "skpt compare: interrupted\n"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(error, code, said, capsys, monkeypatch):
    def fail(args):
        raise error

    monkeypatch.setattr("skpt.cli.compare.run", fail)
    assert main(["compare"]) == code
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", said)


def test_errors_that_nobody_foresaw_keep_their_traceback(monkeypatch):
    def fail(args):
        raise ZeroDivisionError

    monkeypatch.setattr("skpt.cli.compare.run", fail)
    with pytest.raises(ZeroDivisionError):
        main(["compare"])


def test_without_arguments_those_of_the_process_are_read(monkeypatch):
    seen = []
    monkeypatch.setattr("skpt.cli.compare.run", seen.append)
    monkeypatch.setattr(sys, "argv", ["skpt", "compare", "a.csv", "--target", "y", "--cv", "3"])
    assert main() == 0
    assert vars(seen[0]) == {
        "command": "compare", "file": "a.csv", "target": "y", "task": "auto", "cv": 3, "out": None, "seed": 0,
    }  # fmt: skip


@pytest.mark.slow
def test_main_job_runs_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "skpt", "compare", "--out", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert "LinearRegressor, tuned" in run.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.csv", "comparison.png", "winner.safetensors"]


@pytest.mark.slow
def test_ctrl_c_ends_a_process_with_130(tmp_path):
    rows = np.random.default_rng(0).normal(size=(20_000, 4))  # half a minute's work
    table = tmp_path / "table.csv"
    np.savetxt(table, np.column_stack([rows, rows.sum(axis=1)]), delimiter=",", header="a,b,c,d,y", comments="")
    program = [sys.executable, "-u", "-m", "skpt", "compare", str(table), "--target", "y"]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()  # the data are read, training begins
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "skpt compare: interrupted\n")


@pytest.mark.slow
def test_a_reader_that_stops_reading_is_no_traceback():
    program = [sys.executable, "-u", "-m", "skpt", "compare"]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (1, "")
