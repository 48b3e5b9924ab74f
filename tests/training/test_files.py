"""Files of tensors: whole or not at all, and no code in them."""

import io
import os
import pickle

import pytest
import torch

from skpt.exceptions import InvalidInputError
from skpt.training import files
from skpt.training.files import read_tensors, write_tensors

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7), "c": torch.arange(6.0).view(2, 3).t()}
each_format = pytest.mark.parametrize("use_safetensors", [False, True])


@each_format
@pytest.mark.parametrize("kind", ["path", "str", "file"])
def test_what_is_written_is_read(use_safetensors, kind, tmp_path):
    target = {"path": tmp_path / "file", "str": str(tmp_path / "file"), "file": io.BytesIO()}[kind]
    write_tensors(STATE, target, use_safetensors)
    if kind == "file":
        target.seek(0)
    read = read_tensors(target, use_safetensors)
    assert read.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype
    assert [each.name for each in tmp_path.iterdir()] == ["file"] * (kind != "file")


@each_format
@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_who_is_interrupted_keeps_the_old_file(use_safetensors, failing, tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_tensors({"old": torch.ones(3)}, path, use_safetensors)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, failing, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_tensors(STATE, path, use_safetensors)
    assert read_tensors(path, use_safetensors).keys() == {"old"}
    assert os.listdir(tmp_path) == ["file"], "nothing is left lying about"


@each_format
def test_the_content_is_on_the_disk_before_it_has_its_name(use_safetensors, tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda *args: (calls.append("fsync"), fsync(*args)))
    monkeypatch.setattr(files.os, "replace", lambda *args: (calls.append("replace"), replace(*args)))
    write_tensors(STATE, tmp_path / "file", use_safetensors)
    assert calls == ["fsync", "replace"]


@each_format
@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04."], ids=["empty", "text", "pickle"])
def test_another_format_is_an_error_that_names_the_other(use_safetensors, content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    kind = "safetensors" if use_safetensors else "torch"
    with pytest.raises(InvalidInputError, match=rf"must be one of {kind}\..*pass use_safetensors={not use_safetensors}"):
        read_tensors(tmp_path / "file", use_safetensors)


@each_format
@pytest.mark.parametrize("n_bytes", [1, 100, -1])
def test_a_truncated_file_is_an_error(use_safetensors, n_bytes, tmp_path):
    path = tmp_path / "file"
    write_tensors({"a": torch.ones(1000)}, path, use_safetensors)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(InvalidInputError, match=r"Reading .* failed"):
        read_tensors(path, use_safetensors)


class Exploding:
    def __reduce__(self):
        return (pytest.fail, ("reading ran code",))


@pytest.mark.parametrize("dump", [pickle.dump, torch.save])
def test_reading_runs_no_code(dump, tmp_path):
    with open(tmp_path / "file", "wb") as file:
        dump({"a": Exploding()}, file)
    for use_safetensors in (False, True):
        with pytest.raises(InvalidInputError):
            read_tensors(tmp_path / "file", use_safetensors)


def test_a_missing_file_is_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "file", False)


def test_the_format_is_found_whatever_the_length_of_the_header():
    """A file of safetensors begins with a length, whose bytes may be those that a file of torch begins with."""
    first_bytes = set()
    for n in range(300):
        file = io.BytesIO()
        write_tensors({"a" * (n + 1): torch.arange(3.0)}, file, True)
        content = file.getvalue()
        first_bytes.add(content[:1])
        assert torch.equal(read_tensors(io.BytesIO(content))["a" * (n + 1)], torch.arange(3.0))
    assert {b"\x80", b"P"} <= first_bytes
    file = io.BytesIO()
    write_tensors(STATE, file, False)
    assert read_tensors(io.BytesIO(file.getvalue())).keys() == STATE.keys()
