"""Penn Treebank: the three files, streams that go on from batch to batch, evaluation that knows no neighbours."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from smoke import smoke

from glideslope.tasks.data import DataFormatError, MissingDataError
from glideslope.tasks.treebank import PTB, PTBLSTM, NextWord, PTBLSTMOfARC, WordModel, windows
from glideslope.trials.run import batches
from glideslope.trials.task import seeded_model
from glideslope.trials.trial import Seeds

PLAIN = {"dropout": torch.tensor([0])}


@dataclass(frozen=True)
class Tiny(NextWord):
    """Two small layers of different sizes, on the same files."""

    name: ClassVar[str] = "tiny-ptb"
    version: ClassVar[int] = 1
    maximum_epochs: ClassVar[int] = 2
    batch_size: ClassVar[int] = 3
    length: ClassVar[int] = 4
    dropout: float = 0.0

    def model(self, seed):
        return seeded_model(seed, lambda: WordModel(5, (6, 7), self.dropout, self.batch_size))


def sentences(words, per_line=9):
    lines = [words[start : start + per_line] for start in range(0, len(words), per_line)]
    return "".join(f" {' '.join(line)} \n" for line in lines)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """9,999 words and ends of lines, in the files of Mikolov; a word's name says how often it is there."""
    monkeypatch.setenv("GLIDESLOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GLIDESLOPE_DATA", str(tmp_path))
    place = tmp_path / "ptb"
    place.mkdir()
    words = ["<unk>", "N", *(f"w{index:04}" for index in range(9_997))]
    (place / "ptb.train.txt").write_text(sentences(["N"] * 30 + words + ["<unk>"] * 40))
    (place / "ptb.valid.txt").write_text(sentences(words[5:150]))
    (place / "ptb.test.txt").write_text(sentences(words[200:350]))
    return place


class TestFiles:
    def test_frequent_words_come_first(self, folder):
        arrays = PTB.arrays()
        counts = np.bincount(arrays["train"])
        assert len(counts) == 10_000
        assert (np.diff(counts) <= 0).all()
        # The ends of 1,119 lines, <unk>, N, and all others in alphabetical order.
        assert counts[:4].tolist() == [1119, 41, 31, 1]
        assert arrays["validation"][:10].tolist() == [*range(6, 15), 0]

    def test_lines_need_no_blanks_around_them(self, folder):
        once = PTB.arrays()["test"]
        path = folder / "ptb.test.txt"
        path.write_text("\n".join(line.strip() for line in path.read_text().splitlines()) + "\n")
        np.testing.assert_array_equal(PTB.arrays()["test"], once)

    def test_another_vocabulary(self, folder):
        path = folder / "ptb.train.txt"
        path.write_text(path.read_text()[: len(path.read_text()) // 2])
        with pytest.raises(DataFormatError, match=r"ptb\.train\.txt has [45],\d+ different words .*, and not 10,000"):
            PTB.arrays()

    def test_a_word_that_training_does_not_know(self, folder):
        (folder / "ptb.valid.txt").write_text(" the cat sat \n")
        with pytest.raises(DataFormatError, match=r"ptb\.valid\.txt has the word 'the', which ptb\.train\.txt has not"):
            PTB.arrays()

    def test_a_text_that_is_too_short(self, folder):
        (folder / "ptb.test.txt").write_text("N N N\n")
        with pytest.raises(
            DataFormatError, match="a text of 4 words, and 1 windows of 35 need 36: it may be cut short"
        ):
            PTBLSTM().splits()

    def test_a_file_is_missing(self, folder):
        (folder / "ptb.valid.txt").unlink()
        with pytest.raises(MissingDataError, match=r"lacks ptb\.valid\.txt\. It is a folder with ptb\.train\.txt"):
            PTB.arrays()


class TestWindows:
    @pytest.mark.parametrize("num_streams", [1, 3, 20])
    def test_streams_read_the_whole_text_in_order(self, num_streams):
        words = np.arange(1000, 1000 + 20 * 71)
        text, first, stream = windows(words, num_streams, length=7)
        per_stream = len(words) // num_streams
        for number in range(num_streams):
            mine = text[stream == number]
            read = mine[:, 7:-1].flatten()
            assert read.tolist() == list(range(read[0], read[0] + len(read)))
            assert read[0] == 1000 + number * per_stream
            assert per_stream - len(read) <= 7
            assert torch.equal(mine[:, 8:].flatten(), read + 1)
            assert torch.equal(mine[1:, :7], mine[:-1, 7:-1])
            assert first[stream == number].tolist() == [1] + [0] * (len(mine) - 1)

    def test_batches_have_the_next_window_of_every_stream(self, folder):
        task = Tiny()
        train = task.splits().train
        per_epoch = len(train[0]) // task.batch_size
        seen = [batch for batch, _ in batches(task, train, Seeds.all(1), per_epoch + 1)]
        for (text, _, stream), (following, first, _) in pairwise(seen[:per_epoch]):
            assert stream.tolist() == [0, 1, 2]
            assert torch.equal(following[:, :4], text[:, 4:-1])
            assert not first.any()
        assert all(seen[0][1]), "an epoch begins with streams that begin"
        assert torch.equal(seen[-1][0], seen[0][0])


class TestState:
    def test_windows_in_a_row_are_the_text_in_one_go(self, folder):
        task = Tiny()
        model, train = task.model(0), task.splits().train
        with torch.no_grad():
            losses = [
                task.loss(model, tuple(column[row : row + 3] for column in train), PLAIN).item()
                for row in range(0, 15, 3)
            ]
            for stream in range(3):
                text = train[0][stream:15:3]
                logits, states = model(text[:, 4:-1].reshape(1, 20))
                expected = torch.nn.functional.cross_entropy(logits[0], text[:, 5:].flatten(), reduction="none")
                losses = [left - right for left, right in zip(losses, expected.view(5, 4).mean(1) / 3, strict=True)]
                for kept, state in zip(model.carried(torch.tensor([stream])), states, strict=True):
                    for left, right in zip(kept, state, strict=True):
                        torch.testing.assert_close(left, right)
        assert torch.tensor(losses).abs().max() < 1e-5

    def test_gradients_end_where_the_window_begins(self, folder):
        task = Tiny()
        model, train = task.model(0), task.splits().train
        for row in (0, 3):
            task.loss(model, tuple(column[row : row + 3] for column in train), PLAIN).backward()
        assert all(not buffer.requires_grad for buffer in model.buffers())

    def test_a_rank_keeps_the_states_of_its_own_streams(self, folder):
        task = Tiny()
        model, train = task.model(0), task.splits().train
        task.loss(model, tuple(column[1:3] for column in train), PLAIN)
        assert [bool(row.any()) for row in model.hidden_1] == [False, True, True]

    def test_it_is_reset_where_a_stream_begins(self, folder):
        task = Tiny()
        model, train = task.model(0), task.splits().train
        batch = tuple(column[:3] for column in train)
        once = task.loss(model, batch, PLAIN)
        model.cell_0.fill_(math.nan)
        assert torch.equal(task.loss(model, batch, PLAIN), once)

    def test_it_is_in_checkpoints(self, folder):
        task = Tiny()
        model, train = task.model(0), task.splits().train
        task.loss(model, tuple(column[:3] for column in train), PLAIN)
        other = task.model(1)
        other.load_state_dict(model.state_dict())
        following = tuple(column[3:6] for column in train)
        assert torch.equal(task.loss(model, following, PLAIN), task.loss(other, following, PLAIN))

    def test_outside_of_training_nothing_is_carried(self, folder):
        task = Tiny()
        model, splits = task.model(0), task.splits()
        task.loss(model, tuple(column[:3] for column in splits.train), PLAIN)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.eval()
        following = tuple(column[3:6] for column in splits.train)
        loss = task.loss(model, following, PLAIN)
        evaluated = task.evaluate(model, following, {})["loss"]
        torch.testing.assert_close(loss, evaluated.mean())
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class TestEvaluation:
    def test_depends_on_no_chunks(self, folder):
        task = Tiny(dropout=0.5)
        model, test = task.model(0).eval(), task.splits().test
        whole = task.evaluate(model, test, {})["loss"]
        assert whole.shape == (len(test[0]),)
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
        parts = [task.evaluate(model, tuple(column[rows] for column in test), {})["loss"] for rows in order.split(5)]
        torch.testing.assert_close(torch.cat(parts), whole[order])

    def test_a_window_is_read_behind_the_one_before(self, folder):
        task = Tiny()
        model, test = task.model(0).eval(), task.splits().test
        text = torch.cat([test[0][0, 4:-1], test[0][1, 4:]])
        logits, _ = model(text[None, :-1])
        expected = torch.nn.functional.cross_entropy(logits[0], text[1:], reduction="none")
        found = task.evaluate(model, tuple(column[:2] for column in test), {})["loss"]
        torch.testing.assert_close(found, expected.view(2, 4).mean(1))

    def test_perplexity_of_weights_that_know_nothing(self, folder):
        task = Tiny()
        model = task.model(0).eval()
        torch.nn.init.zeros_(model.readout.weight)
        torch.nn.init.zeros_(model.readout.bias)
        with torch.no_grad():
            found = task.metric.over_split(task.evaluate(model, task.splits().test, {}))
        assert found == pytest.approx(10_000, rel=1e-5)


def test_dropout_comes_with_the_draws(folder):
    task = Tiny(dropout=0.5)
    batch = tuple(column[:3] for column in task.splits().train)
    before = torch.get_rng_state()
    once, again, other = (
        task.loss(task.model(0), batch, {"dropout": torch.tensor([seed])}).item() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert once == again != other


@pytest.mark.parametrize(
    ("task", "size"), [(PTBLSTM(), 19_780_400), (PTBLSTMOfARC(), 11_174_800)], ids=["zaremba", "arc"]
)
def test_trains_and_goes_on(task, size, folder):
    assert sum(weight.numel() for weight in task.model(0).parameters()) == size
    found = smoke(task)
    assert found["loss_before"] == pytest.approx(math.log(10_000), rel=0.01)
    assert found["perplexity"] == pytest.approx(10_000, rel=0.1)
