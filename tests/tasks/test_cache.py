"""The cache folder: built once, whole or not at all, whoever asks at the same moment."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from glideslope.tasks.cache import CacheError, cache_folder, cached


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIDESLOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def never() -> dict:
    raise AssertionError("built a second time")


def test_the_folder_is_the_variable_then_xdg_then_home(monkeypatch):
    monkeypatch.setenv("GLIDESLOPE_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    monkeypatch.setenv("HOME", "/c")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("GLIDESLOPE_CACHE")
    assert cache_folder() == Path("/b/glideslope")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/c/.cache/glideslope")


def test_arrays_are_built_once_and_come_back_memory_mapped(folder):
    arrays = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "y": np.array([1, 2])}
    first = cached("key", lambda: arrays)
    second = cached("key", never)
    for found in (first, second):
        assert sorted(found) == ["x", "y"]
        assert all(isinstance(array, np.memmap) for array in found.values())
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def test_what_one_reader_writes_no_other_reader_sees(folder):
    cached("key", lambda: {"x": np.zeros(3)})["x"][:] = 7
    np.testing.assert_array_equal(cached("key", never)["x"], np.zeros(3))


def test_objects_that_would_need_a_pickle_are_refused(folder):
    with pytest.raises(ValueError, match="allow_pickle"):
        cached("key", lambda: {"x": np.array([{}], dtype=object)})
    assert list(folder.iterdir()) == []


def test_a_build_that_fails_leaves_nothing(folder):
    with pytest.raises(AssertionError, match="second time"):
        cached("key", never)
    assert not folder.exists()


def test_a_full_disk_is_named_and_leaves_nothing(folder, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        with pytest.raises(CacheError, match=r"No space left on device.*Set GLIDESLOPE_CACHE"):
            cached("key", lambda: {"x": np.zeros(3)})
    assert list(folder.iterdir()) == []
    assert cached("key", lambda: {"x": np.zeros(3)})["x"].sum() == 0


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GLIDESLOPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(CacheError, match=r"file.*Set GLIDESLOPE_CACHE"):
        cached("key", lambda: {"x": np.zeros(3)})


def test_of_processes_that_build_at_once_one_wins_and_all_read_its_arrays(folder, tmp_path):
    """Each would put its own process id into the cache; they meet inside `build`, so that none can find it done."""
    num_processes = 3
    program = textwrap.dedent(
        f"""
        import os, pathlib, time
        import numpy as np
        from glideslope.tasks.cache import cached

        def build():
            meeting = pathlib.Path({str(tmp_path)!r})
            (meeting / f"{{os.getpid()}}.started").touch()
            until = time.monotonic() + 300
            while len(list(meeting.glob("*.started"))) < {num_processes}:
                assert time.monotonic() < until, "the others did not come"
                time.sleep(0.005)
            return {{"pid": np.full(1000, os.getpid())}}

        arrays = cached("key", build)
        print(arrays["pid"].min(), arrays["pid"].max())
        """
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(num_processes)
    ]
    answers = {process.communicate(timeout=600)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * num_processes
    assert len(answers) == 1
    smallest, largest = map(int, answers.pop().split())
    assert smallest == largest
    assert smallest in {process.pid for process in processes}
    assert [path.name for path in folder.iterdir()] == ["key"]
