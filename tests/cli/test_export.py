"""`glideslope export`: every number comes out as it went in."""

import json
import math
from dataclasses import replace

import polars
import pytest
from specs import make_spec

from glideslope.cli.export import EXPORTED, SERIES_COLUMNS
from glideslope.report.tables import finite_or_none
from glideslope.trials.run import run_trial
from glideslope.trials.store import Store

SPECS = [
    make_spec(schedule="plateau(patience=0)", rate=0.1, updates=300, probes=("weight_norm",), seed=1),
    make_spec(schedule="rex", optimizer="adamw(weight_decay=0.1)", rate=1 / 3, seed=2),
    make_spec("tiny_tasks:NotANumber", seed=3),
    make_spec("tiny_tasks:Raising", seed=4),
    make_spec("tiny_tasks:BadMetric", seed=5),
]


@pytest.fixture(scope="module")
def records():
    made = [run_trial(spec) for spec in SPECS]
    made[1] = replace(made[1], path={"executor": "population", "device": "cpu", "K": 64, "method": "baddbmm"})
    return made


@pytest.fixture
def runs(tmp_path, records):
    with Store(tmp_path / "runs") as store:
        for spec, record in zip(SPECS, records, strict=True):
            store.put(spec, record)
    return tmp_path


READERS = {".parquet": polars.read_parquet, ".csv": polars.read_csv, ".json": polars.read_json}


class TestTrials:
    @pytest.mark.parametrize("ending", READERS)
    def test_one_row_a_trial(self, ending, glideslope, runs, records):
        called = glideslope("export", "runs", f"deep/down/trials{ending}")
        assert "wrote 5 rows to" in called.err
        assert called.out == ""
        assert [path.name for path in (runs / "deep/down").iterdir()] == [f"trials{ending}"]
        table = READERS[ending](runs / f"deep/down/trials{ending}")
        assert table.columns == list(EXPORTED)
        for row, spec, record in zip(table.iter_rows(named=True), SPECS, records, strict=True):
            assert row["trial_id"] == record.trial_id
            assert (row["status"], row["task"], row["updates"]) == (record.status, spec.task.name, spec.updates)
            assert (row["rate"], row["seed_init"]) == (spec.rate, spec.seeds.init)
            assert row["updates_done"] == record.cost.updates
            assert row["training_seconds"] == record.cost.training_seconds
            assert row["test_loss"] == (record.test.loss if record.test else None)
            assert row["test_metric"] == (finite_or_none(record.test.metric) if record.test else None)
            assert row["validation_update"] == (record.validation[-1].update if record.validation else None)
            if record.last_validation and math.isfinite(record.last_validation.metric):
                assert row["validation_metric"] == record.last_validation.metric
            assert (row["executor"], row["members"]) == (record.path["executor"], record.path["K"])
            assert row["method"] == record.path.get("method")
            assert (row["error"] or "") == record.error
        assert table["schedule"].to_list()[:2] == ["constant | plateau(patience=0)", "rex"]
        assert table["optimizer"].to_list()[:2] == ["sgdm", "adamw(weight_decay=0.1)"]

    def test_types(self, glideslope, runs):
        glideslope("export", "runs", "trials.parquet")
        schema = polars.read_parquet_schema(runs / "trials.parquet")
        kinds = {"TEXT": polars.String, "INTEGER": polars.Int64, "REAL": polars.Float64}
        assert schema == {name: kinds[column.kind] for name, column in EXPORTED.items()}

    def test_filters(self, glideslope, runs):
        glideslope("export", "runs", "trials.csv", "--task", "regression", "--schedule", "rex", "--seed", "2")
        assert polars.read_csv(runs / "trials.csv")["seed_init"].to_list() == [2]

    def test_an_empty_store(self, glideslope, tmp_path):
        with Store(tmp_path / "empty"):
            pass
        glideslope("export", "empty", "trials.parquet")
        assert polars.read_parquet(tmp_path / "trials.parquet").shape == (0, len(EXPORTED))
        glideslope("export", "empty", "series.parquet", "--series")
        assert polars.read_parquet(tmp_path / "series.parquet").shape == (0, len(SERIES_COLUMNS))


class TestSeries:
    @pytest.mark.parametrize("ending", READERS)
    @pytest.mark.parametrize("portion", [1000, 2])
    def test_one_row_a_number(self, ending, portion, glideslope, runs, records, monkeypatch):
        monkeypatch.setattr("glideslope.cli.export.TRIALS_AT_ONCE", portion)
        glideslope("export", "runs", f"series{ending}", "--series")
        table = READERS[ending](runs / f"series{ending}").with_columns(
            polars.col("series", "trial_id").cast(polars.String)
        )
        assert table.columns == list(SERIES_COLUMNS)
        for record in records:
            series = record.series
            expected = {"train_loss": series.train_loss, "rate": series.rate, **series.probes}
            mine = table.filter(polars.col("trial_id") == record.trial_id)
            for name, values in expected.items():
                rows = mine.filter(polars.col("series") == name)
                assert rows["update"].to_list() == list(series.updates)
                if record.status == "finished":
                    assert rows["value"].to_list() == list(values)
            losses = mine.filter(polars.col("series") == "validation_loss")
            assert losses["update"].to_list() == [look.update for look in record.validation]
            assert losses["value"].to_list() == [look.loss for look in record.validation]
            gains = mine.filter(polars.col("series") == "gain")
            assert list(zip(gains["update"], gains["value"], strict=True)) == [entry[:2] for entry in record.decisions]
        assert records[0].decisions

    def test_nan_in_a_loss(self, glideslope, runs):
        glideslope("export", "runs", "series.parquet", "--series", "--status", "diverged", "--task", "NotANumber")
        values = polars.read_parquet(runs / "series.parquet").filter(polars.col("series") == "train_loss")["value"]
        assert math.isnan(values[0])


class TestWords:
    @pytest.mark.parametrize(("arguments", "columns"), [((), EXPORTED), (("--series",), SERIES_COLUMNS)])
    def test_without_a_file_the_columns_are_explained(self, arguments, columns, glideslope, runs):
        called = glideslope("export", "runs", *arguments)
        for name, column in columns.items():
            assert any(line.startswith(name) and column.meaning in line for line in called.out.splitlines()), name
        assert [path.name for path in runs.iterdir()] == ["runs"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("runs", "trials.xlsx"), "cannot write trials.xlsx: the ending must be .parquet, .csv, .json."),
            (("runs", "trials"), "cannot write trials: the ending must be"),
            (("nowhere", "trials.csv"), "there is no store in nowhere"),
            (("runs", "trials.csv", "--status", "fine"), "unknown status 'fine'"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_mistakes(self, arguments, message, glideslope, runs):
        assert message in glideslope("export", *arguments).error
        assert [path.name for path in runs.iterdir()] == ["runs"]

    def test_json_is_strict(self, glideslope, runs):
        def refuse(constant):
            raise AssertionError(constant)

        glideslope("export", "runs", "trials.json")
        assert len(json.loads((runs / "trials.json").read_text(), parse_constant=refuse)) == 5
