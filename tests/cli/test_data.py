"""`glideslope data`: what is there, what is missing, what is another file."""

import json

import numpy as np
import pytest

from glideslope.tasks.data_sets import look_for_all
from glideslope.trials.lookup import find_task, registered_tasks


@pytest.fixture
def folder(tmp_path):
    """A data folder with a file that is none of the published ones, and a data set that lacks a part."""
    folder = tmp_path / "data"
    (folder / "cifar-100-binary").mkdir(parents=True)
    (folder / "cifar-100-binary" / "train.bin").write_bytes(b"\0" * 3074)
    np.savez(folder / "mnist.npz", train_images=np.zeros((1, 28, 28), np.uint8))
    return folder


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


def test_every_task_needs_a_data_set_that_is_known():
    known = {found.name for found in look_for_all()} | {None}
    assert {find_task(name).needs for name in registered_tasks()} <= known


def test_names_what_is_there_and_what_is_missing(glideslope, folder):
    out = glideslope("data", "--data", str(folder)).out
    assert "another file" in line_of(out, "mnist.npz")
    assert "mnist-vae" in line_of(out, "mnist.npz")
    assert "incomplete" in line_of(out, "cifar-100-binary ")
    assert "missing" in line_of(out, "tinyshakespeare.txt.gz ")
    assert "lacks test.bin" in out
    assert "char-rnn" in out  # how to get it
    assert str(folder) in out


def test_another_file_is_named_with_both_checksums(glideslope, folder):
    called = glideslope("data", "--data", str(folder), "--json")
    found = {entry["name"]: entry for entry in json.loads(called.out)}
    assert "8bed24bad4c1f6851ac2b48b9d39fea03331998b1a4276d17fd71bceedb1ec6c" in found["mnist.npz"]["doubt"]
    assert found["glue_sst2.tsv.gz"]["state"] == "missing"


def test_without_a_folder_it_says_how_to_name_one(glideslope, monkeypatch):
    monkeypatch.delenv("GLIDESLOPE_DATA", raising=False)
    out = glideslope("data").out
    assert "--data DIR" in out
    assert "missing" in line_of(out, "mnist.npz")


def test_a_layout_of_another_name_is_shown_with_the_tasks_that_use_it(glideslope, tmp_path):
    into = tmp_path / "MNIST" / "raw"
    into.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (into / f"{part}-ubyte").touch()
    out = glideslope("data", "--data", str(tmp_path)).out
    line = line_of(out, "mnist.npz: MNIST/raw ")
    assert line.split()[2] == "there"
    assert "mnist-vae" in line
