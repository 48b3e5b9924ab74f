"""A CSV file as a learning task: every column is read for what it is, and what cannot be used is said in one line."""

import gzip
import re

import numpy as np
import pandas as pd
import pytest

from skpt.cli.table import read_table
from skpt.exceptions import InvalidInputError

N_ROWS = 30


@pytest.fixture
def write(tmp_path):
    """Write a file and give its path."""

    def write(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def table_of(write):
    """Read columns that went through a CSV file: the given ones, a number x, and the target y."""

    def table_of(task="auto", y=None, **columns):
        y = np.arange(N_ROWS) * 1.5 if y is None else y
        frame = pd.DataFrame({**columns, "x": np.sqrt(np.arange(len(y))), "y": y})
        return read_table(write(frame.to_csv(index=False)), "y", task)

    return table_of


def repeated(*values):
    return [values[i % len(values)] for i in range(N_ROWS)]


# The columns


def test_numbers_stay_numbers(table_of):
    table = table_of(whole=repeated(1, 2, 3), broken=repeated(0.5, -1e30), x2=range(N_ROWS))
    assert table.numbers == ["whole", "broken", "x2", "x"]
    assert table.categories == []
    np.testing.assert_array_equal(table.X["broken"], repeated(0.5, -1e30))


def test_texts_are_categories(table_of):
    table = table_of(color=repeated("red", "green", "blue"), mixed=repeated("1", "two", "3"))
    assert table.categories == ["color", "mixed"]
    assert table.X["color"].tolist() == repeated("red", "green", "blue")


@pytest.mark.parametrize("missing", ["", "NA", "nan", "?", " ", "NULL"])
def test_missing_values_are_missing_however_they_are_written(table_of, missing):
    table = table_of(number=repeated("1", "2", missing), text=repeated("a", missing, "b"))
    assert table.numbers == ["number", "x"]
    assert table.X["number"].isna().tolist() == repeated(False, False, True)
    assert table.X["text"].isna().tolist() == repeated(False, True, False)
    assert table.X["text"].dropna().unique().tolist() == ["a", "b"]


def test_infinite_features_are_missing(table_of):
    assert table_of(number=repeated(1.0, np.inf, 2.0)).X["number"].isna().tolist() == repeated(False, True, False)


@pytest.mark.parametrize("spelling", [("True", "False"), ("true", "false"), ("TRUE", "FALSE")])
@pytest.mark.parametrize("missing", [[], [""]])
def test_truth_values_are_one_and_zero(table_of, spelling, missing):
    table = table_of(flag=repeated(*spelling, *missing))
    expected = repeated(1.0, 0.0, *[np.nan] * len(missing))
    np.testing.assert_array_equal(table.X["flag"], expected)


DAYS = pd.date_range("2023-01-25", periods=N_ROWS, freq="D")


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%Y-%m-%dT%H:%M:%SZ"])
def test_dates_become_days_month_and_weekday(table_of, form):
    table = table_of(when=DAYS.strftime(form))
    assert table.dates == {"when": ["when days", "when month", "when weekday"]}
    assert table.numbers == ["when days", "x"]
    np.testing.assert_array_equal(table.X["when days"], (DAYS - pd.Timestamp(0)).days)
    assert table.X["when month"].tolist() == DAYS.month_name().tolist()
    assert table.X["when weekday"].tolist() == DAYS.day_name().tolist()


def test_times_of_day_are_hours(table_of):
    hours = pd.date_range("2024-03-01", periods=N_ROWS, freq="h")
    table = table_of(when=hours.strftime("%d.%m.%Y %H:%M"))
    assert table.X["when hour"].tolist() == [str(hour) for hour in hours.hour]
    np.testing.assert_allclose(table.X["when days"].diff().dropna(), 1 / 24)


def test_months_without_a_day_are_dates_too(table_of):
    months = pd.date_range("2000-01-01", periods=N_ROWS, freq="MS")
    table = table_of(when=months.strftime("%Y-%m"))
    assert list(table.dates) == ["when"]
    assert table.X["when month"].nunique() == 12


def test_missing_dates_are_missing_in_all_their_parts(table_of):
    table = table_of(when=["", *DAYS[1:].strftime("%Y-%m-%d")])
    assert table.X.loc[0, table.dates["when"]].isna().all()
    assert table.X.loc[1:].notna().all(axis=None)


@pytest.mark.parametrize("texts", [["1-2-x", "3-4-y"], ["2023-13-45", "2023-99-01"], ["12:30", "12:45"], ["may", "june"]])
def test_what_only_looks_like_a_date_is_a_category(table_of, texts):
    table = table_of(when=repeated(*texts))
    assert table.dates == {}
    assert table.categories == ["when"]


def test_columns_without_use_are_dropped_with_the_reason(table_of):
    table = table_of(
        id=range(1, N_ROWS + 1),
        PassengerId=range(N_ROWS),
        name=[f"name {i}" for i in range(N_ROWS)],
        nothing=[np.nan] * N_ROWS,
        same=["always me"] * N_ROWS,
        zero=[0] * N_ROWS,
        yes=[True] * N_ROWS,
        day=["2024-01-01"] * N_ROWS,
        constant_or_missing=repeated(7, np.nan),
    )
    assert table.dropped == {
        "id": "numbers the rows",
        "PassengerId": "numbers the rows",
        "name": "30 different texts in 30 rows",
        "nothing": "no values",
        "same": "always always me",
        "zero": "always 0",
        "yes": "always True",
        "day": "always 2024-01-01",
        "constant_or_missing": "always 7.0",
    }
    assert list(table.X) == ["x"]


def test_columns_like_those_are_kept(table_of):
    shuffled = np.random.default_rng(0).permutation(N_ROWS)
    table = table_of(id=shuffled, year=range(1, N_ROWS + 1), said_or_not=repeated("yes", ""), twice=repeated(*"abcdefghij"))
    assert table.dropped == {}
    assert list(table.X) == ["id", "year", "said_or_not", "twice", "x"]


# The target


@pytest.mark.parametrize(
    ("y", "classification", "reason"),
    [
        (repeated("a", "b", "c"), True, "3 different texts"),
        (repeated(True, False), True, "2 different truth values"),
        (repeated(0, 1), True, "2 different whole numbers"),
        (repeated(1.0, 2.0, 5.0), True, "3 different whole numbers"),
        (repeated(0.5, 1.5), False, "2 different numbers"),
        (repeated(*range(6)), True, "6 different whole numbers"),
        (repeated(*range(7)), False, "7 different whole numbers"),  # fewer than five rows for each
        (range(N_ROWS), False, "30 different whole numbers"),
        (np.arange(N_ROWS) / 7, False, "30 different numbers"),
    ],
)
def test_target_decides_the_task(table_of, y, classification, reason):
    table = table_of(y=list(y))
    assert (table.classification, table.reason) == (classification, reason)
    assert table.y.tolist() == list(y)
    assert table.y.dtype.kind == (np.asarray(y).dtype.kind.replace("U", "O").replace("f", "i") if classification else "f")


def test_ten_classes_of_whole_numbers_at_most(table_of):
    assert table_of(y=np.arange(100) % 10).classification
    assert not table_of(y=np.arange(110) % 11).classification


def test_two_whole_numbers_are_classes_in_few_rows_too(table_of):
    assert table_of(y=[0, 1, 1, 0]).classification
    assert not table_of(y=[0, 1, 2, 0]).classification


def test_task_may_be_given(table_of):
    assert not table_of("regression", y=repeated(0, 1)).classification
    assert table_of("classification", y=repeated(0.5, 1.5)).y.tolist() == repeated("0.5", "1.5")
    table = table_of("classification", y=repeated(*range(12)))
    assert (table.classification, table.reason) == (True, "12 different whole numbers, --task classification")


@pytest.mark.parametrize(
    ("task", "y", "said"),
    [
        ("regression", repeated("a", "b"), "--task regression needs a target of numbers. 'y' holds texts."),
        ("regression", repeated(True, False), "'y' holds truth values."),
        ("classification", range(N_ROWS), "no class: it has 30 different values in 30 rows. Try --task regression."),
        ("auto", [f"text {i}" for i in range(N_ROWS)], "no class: it has 30 different values in 30 rows"),
        ("auto", [5] * N_ROWS, "the target 'y' has one value only, 5: nothing to predict"),
        ("auto", [1.5, "", *range(28)], "the target 'y' has 1 missing value, the first in row 2."),
        ("auto", repeated("a", "", "b"), "the target 'y' has 10 missing values, the first in row 2."),
        ("auto", [1.5, 2.5, "inf", *range(27)], "the target 'y' is infinite in row 3."),
    ],
)
def test_target_that_cannot_be_used_is_an_error(table_of, task, y, said):
    with pytest.raises(InvalidInputError, match=re.escape(said)):
        table_of(task, y=list(y))


# The file


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separator_is_that_of_the_header(write, separator):
    lines = ["a,b,y", "0.5,red,1.25", "1.5,blue,2.5", "2.5,red,3.5"]
    table = read_table(write("\n".join(lines).replace(",", separator)), "y")
    assert (table.numbers, table.categories) == (["a"], ["b"])
    assert table.y.tolist() == [1.25, 2.5, 3.5]


def test_decimal_commas_are_read_where_semicolons_separate(write):
    table = read_table(write("a;b;y\n0,5;red;1,25\n1,5;blue;2,5\n2,5;red;3,5\n"), "y")
    assert table.X["a"].tolist() == [0.5, 1.5, 2.5]
    assert table.y.tolist() == [1.25, 2.5, 3.5]


def test_compressed_marked_and_padded_files_are_read(write):
    plain = read_table(write("a,y\n1,0.5\n2,1.5\n"), "y")
    for path in [
        write(gzip.compress(b"a,y\n1,0.5\n2,1.5\n"), "table.csv.gz"),
        write("\ufeffa,y\n1,0.5\n2,1.5\n"),
        write("a , y\n1 , 0.5\n2, 1.5\n"),
        write("a,y\r\n1,0.5\r\n2,1.5\r\n"),
        write("a,y\n1,0.5,\n2,1.5,\n"),
    ]:
        table = read_table(path, " y")
        assert table.X.equals(plain.X)
        assert table.y.tolist() == plain.y.tolist()


def test_quoted_fields_hold_separators_and_line_ends(write):
    table = read_table(write('a,b,y\n1,"x, or\ny",0.5\n2,z,1.5\n3,"x, or\ny",2.5\n4,z,3.5\n'), "y")
    assert table.X["b"].tolist() == ["x, or\ny", "z"] * 2


@pytest.mark.filterwarnings("default::pandas.errors.ParserWarning")  # as outside of the tests
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,y\n", "has a header and no rows"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "is no CSV file in UTF-8. Save it as 'CSV UTF-8'."),
        ("a,y\n1,2\n".encode("utf-16"), "is no CSV file in UTF-8. Save it as 'CSV UTF-8'."),
        ("a,y\n1,2\n".encode("utf-16-le"), "is no CSV file in UTF-8. Save it as 'CSV UTF-8'."),
        ("größe,y\n1,2\n".encode("latin-1"), "is no CSV file in UTF-8. Save it as 'CSV UTF-8'."),
        ("Dear reader,\nthis is a letter, and,\nnot, a, table,\n", "is no CSV file: "),
        ("a,y\n1,2\n1,2,3\n", "is no CSV file: Error tokenizing data. C error: Expected 2 fields in line 3, saw 3"),
        ("a,y\n1,2,3\n", "is no CSV file: "),
        ("a,z\n1,2\n", "has no column 'y'. Known are: a, z."),
        ("a,y,y \n1,2,3\n", "has two columns named 'y'. Rename one of them."),
        ("a,Y \n1,2\n", "has no column 'y'. Did you mean 'Y'?"),
        ("y\n1\n2\n", "has no column to learn from beside 'y'."),
        ("a,y\n1,1\n1,2\n", "has no column to learn from beside 'y'. 'a': always 1"),
    ],
)
def test_file_that_cannot_be_used_is_an_error(write, content, said):
    path = write(content)
    with pytest.raises(InvalidInputError, match=re.escape(f"{path} {said}")) as error:
        read_table(path, "y")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"a,y\n1,2\n" * 1000)[:-20]], ids=["text", "cut"])
def test_broken_compression_is_an_error(write, content):
    path = write(content, "table.csv.gz")
    with pytest.raises(InvalidInputError, match=re.escape(f"cannot read {path}: ")):
        read_table(path, "y")


def test_missing_file_and_folder_are_errors(tmp_path):
    with pytest.raises(InvalidInputError, match=re.escape(f"there is no file {tmp_path / 'none.csv'}")):
        read_table(tmp_path / "none.csv", "y")
    with pytest.raises(InvalidInputError, match=re.escape(f"{tmp_path} is a folder. Give a CSV file.")):
        read_table(tmp_path, "y")


def test_long_lists_of_columns_are_cut(write):
    names = ",".join(f"column{i}" for i in range(500))
    with pytest.raises(InvalidInputError) as error:
        read_table(write(names + "\n" + ",".join("1" * 500) + "\n"), "zzz")
    assert len(str(error.value)) < 400
