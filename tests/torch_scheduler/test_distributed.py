"""Ranks: one decides progress, exhaustion and gain; all leave the loop at the same update. Real processes, gloo."""

import json
import multiprocessing
import sys

import pytest
import ranks


@pytest.mark.skipif(sys.platform == "win32", reason="gloo's file rendezvous")
def test_skewed_clocks_and_opinions_end_in_one_run(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=ranks.work, args=(rank, str(tmp_path))) for rank in range(ranks.RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * ranks.RANKS
    runs = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(ranks.RANKS)]
    assert len(runs[0]) == 20  # rank 0's clock ticks once an update
    assert runs[1] == runs[0]
    assert runs[2] == runs[0]
    assert runs[0][-1][1] < 1  # the controller did decide
