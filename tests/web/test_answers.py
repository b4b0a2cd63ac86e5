"""What the pages ask for: rows, one sample, what training makes of it, metadata, runs, decisions."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import imgdata
from imgdata.web.later import Later
from imgdata.web.query import order_of
from support.digit_runs import quick
from support.viewer_sites import digits_with_metadata, label_findings, pair_findings, site

TRAIN, VAL = 160, 40


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits with metadata; decisions of a test go elsewhere."""
    return digits_with_metadata(tmp_path_factory.mktemp("answers"))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.uint64, np.float64])
def test_rows_are_sorted_as_python_sorts_them(dtype: type, descending: bool) -> None:
    values = np.random.default_rng(1).integers(0, 200, 999).astype(dtype)
    by_value = sorted(range(999), key=lambda place: values[place], reverse=descending)
    # Python's reverse keeps the order of equal ones as well.
    assert order_of(values, descending=descending).tolist() == by_value


@pytest.mark.parametrize("descending", [False, True])
def test_values_too_far_apart_to_join_and_missing_ones_are_sorted_as_well(descending: bool) -> None:
    far = np.array([2**62, -(2**62), 0, 5])
    assert order_of(far, descending=descending).tolist() == ([0, 3, 2, 1] if descending else [1, 2, 3, 0])
    gaps = np.array([np.nan, 2.0, 1.0, np.nan])
    assert order_of(gaps, descending=descending).tolist()[2:] == [0, 3]
    assert order_of(np.empty(0, np.int32)).tolist() == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", TRAIN + VAL),
        ("split=val", VAL),
        ("class=3", 20),
        ("class=none", 0),
        ("format=png", TRAIN + VAL),
        ("format=webp", 0),
        ("text=TRAIN%2F3%2F", 16),
        ("width_min=17", 0),
        ("is.json.side=right&split=val", 13),
        ("json.year_min=2019", 10),
        ("mark=finding:label", 5),
        ("mark=finding:", 7),
        ("mark=finding:leak", 0),
        ("mark=decision:conflict", 0),
    ],
)
def test_filters_find_what_they_say(out: Path, tmp_path: Path, query: str, expected: int) -> None:
    findings = [*label_findings(out, 5), *pair_findings(out, 2)]
    with site(out, findings, reviews=tmp_path / "decisions.jsonl") as asked:
        assert asked.json(f"/api/rows?{query}")["total"] == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("split=none", "split must be one of train, val"),
        ("class=cat", "class must be a class index"),
        ("width_min=wide", "width_min must be a number"),
        ("depth_min=3", "a column must be one of"),
        ("sort=depth", "a column must be one of"),
        ("is.width=3", "no column of words"),
        ("mark=all", "mark must be finding:KIND"),
        ("mark=run:none:wrong", "run must be one of none; start the viewer with --run"),
        ("count=5000", "count 0 to 500"),
        ("start=x", "start must be a whole number"),
    ],
)
def test_wrong_questions_get_one_message(out: Path, query: str, message: str) -> None:
    with site(out) as asked:
        status, body = asked.get(f"/api/rows?{query}")
    assert (status, message in body.decode()) == (400, True), body


def test_metadata_is_read_once_it_is_asked_for(out: Path) -> None:
    with site(out) as asked:
        assert not asked.viewer.json_columns.ready
        columns = asked.json("/api/columns")["columns"]
        known = {one["name"]: one.get("words") or [one["least"], one["most"]] for one in columns}
        assert known["json.year"] == [2000, 2019]
        assert known["json.side"] == ["left", "right"]
        assert "<b>7</b>" in known["json.note"]
        years = asked.json("/api/rows?sort=-json.year&count=500")["rows"]
        first = asked.json(f"/api/sample/{years[0]['number']}")
        assert first["fields"]["year"] == 2019


def test_a_sample_shows_its_files_in_the_tar_and_where_it_stands(out: Path) -> None:
    with site(out) as asked:
        found = asked.json("/api/sample/3?split=train&sort=-key")
        split = imgdata.open(out)["train"]
        assert [one["name"].rpartition(".")[2] for one in found["members"]] == ["cls", "json", "png"]
        picture = next(one for one in found["members"] if one["name"].endswith(".png"))
        assert (picture["offset"], picture["size"]) == (found["offset"], found["size"])
        keys = sorted((split.index.row(position).key for position in range(TRAIN)), reverse=True)
        place = keys.index(found["key"])
        assert (found["place"], found["total"]) == (place, TRAIN)
        assert asked.json(f"/api/sample/{found['next']}")["key"] == keys[place + 1]
        assert all(one["label"] == found["label"] for one in found["same_class"])
        last = asked.json(f"/api/sample/{TRAIN + VAL - 1}")
        assert (last["next"], last["members"][0]["name"].startswith(last["key"])) == (None, True)
        assert asked.get("/api/sample/99999")[0] == 404


def test_what_training_makes_of_a_sample_is_what_the_loader_hands_out(out: Path) -> None:
    with site(out) as asked:
        usual = asked.json("/api/recipe?split=train")
        assert usual["seed"] == 0
        loader = imgdata.Loader(
            out, split="train", batch_size=TRAIN, recipe=_usual(out), backend="cpu", dtype="uint8", threads=1
        )
        with loader:
            for epoch in (1, 2):
                loader.set_epoch(epoch - 1)
                batch = next(iter(loader))
                row = batch.positions.tolist().index(7)
                status, body = asked.get(f"/augmented/7/{epoch}")
                assert status == 200
                pixels = np.asarray(Image.open(io.BytesIO(body)))
                assert (pixels == batch.images[row].permute(1, 2, 0).numpy()).all()
    assert usual["steps"] == [str(op) for op in _usual(out).ops]


def _usual(out: Path) -> Any:
    from imgdata.web.augmented import recipe_of

    return recipe_of(imgdata.open(out), "train", None)[0]


def test_decisions_made_together_are_taken_back_together(out: Path, tmp_path: Path) -> None:
    with site(out, reviews=tmp_path / "decisions.jsonl") as asked:
        keys = [one["key"] for one in asked.json("/api/rows?count=3")["rows"]]
        each = [{"split": "train", "key": key, "action": "accept"} for key in keys]
        asked.post("/api/decisions", decisions=each[:1])
        asked.post("/api/decisions", decisions=each[1:])
        assert asked.json("/api/queue")["decided"] == 3
        assert [one["key"] for one in asked.post("/api/undo")["undone"]] == keys[1:]
        assert asked.post("/api/undo", author="bob")["undone"] == []
        assert asked.json("/api/queue")["decided"] == 1
        assert [one["key"] for one in asked.post("/api/undo")["undone"]] == keys[:1]
        assert asked.post("/api/undo")["undone"] == []
        assert asked.json("/api/queue?author=bob")["decided"] == 0


def test_two_who_decide_differently_are_both_kept_and_shown_in_conflict(out: Path, tmp_path: Path) -> None:
    with site(out, reviews=tmp_path / "decisions.jsonl") as asked:
        (row,) = asked.json("/api/rows?count=1")["rows"]
        one = {"split": row["split"], "key": row["key"], "old": "0"}
        asked.post("/api/decisions", author="ann", decisions=[{**one, "action": "accept"}])
        asked.post("/api/decisions", author="bob", decisions=[{**one, "action": "relabel", "new": "4"}])
        queues = asked.json("/api/queues")
        assert (queues["conflicts"], queues["authors"]) == (1, ["ann", "bob"])
        (item,) = asked.json("/api/queue?mark=decision:conflict")["items"]
        both = [(each["author"], each["action"], each["new"]) for each in item["row"]["decisions"]]
        assert both == [("ann", "accept", ""), ("bob", "relabel", "4")]


def test_the_queue_begins_with_the_surest_and_ends_when_all_is_decided(out: Path, tmp_path: Path) -> None:
    with site(out, label_findings(out, 3), reviews=tmp_path / "decisions.jsonl") as asked:
        found = asked.json("/api/queue?mark=finding:label")
        assert [one["row"]["number"] for one in found["items"]] == [0, 1, 2]
        assert found["yield"] == "Of the next 3 labels, some 3 are wrong by the audit's own estimate."
        for item in found["items"]:
            one = {"split": "train", "key": item["row"]["key"], "action": "skip"}
            asked.post("/api/decisions", decisions=[one])
        assert asked.json("/api/queue?mark=finding:label")["items"] == []
        # What one person skips is left for another.
        assert len(asked.json("/api/queue?mark=finding:label&author=bob")["items"]) == 3


def test_a_result_is_computed_once_and_its_error_is_raised() -> None:
    calls = []
    made = Later("counting", lambda progress: calls.append(progress(1, 2)) or 7)
    assert (made.wait(), made.wait(), len(calls), made.ready) == (7, 7, 1, True)
    failing: Later[int] = Later("failing", lambda progress: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failing.wait()


@pytest.mark.slow
def test_a_run_shows_its_curves_its_confusions_and_single_predictions(out: Path, tmp_path: Path) -> None:
    imgdata.train(out, tmp_path / "run", quick(epochs=2))
    evaluated = imgdata.evaluate(tmp_path / "run", out)
    with site(out, runs=[tmp_path / "run"]) as asked:
        (run,) = asked.json("/api/overview")["runs"]
        assert len(run["curves"]) == 2
        found = asked.json("/api/run?run=run")
        assert found["matrix"] == evaluated.scores.confusion_CC.tolist()
        assert (found["right"], found["total"], found["split"]) == (evaluated.scores.correct, VAL, "val")
        wrong = asked.json("/api/rows?mark=run:run:wrong&sort=-run.loss&count=100")
        assert wrong["total"] == VAL - evaluated.scores.correct
        assert [one["number"] for one in wrong["rows"]][:24] == [one["number"] for one in found["worst"]]
        label, output, times = found["pairs"][0]
        assert asked.json(f"/api/rows?mark=run:run:{label}-{output}")["total"] == times
        answer = asked.json(f"/api/predicted/{TRAIN}?run=run")["predictions"]
        row = evaluated.predictions.position_N.tolist().index(0)
        assert answer[0]["output"] == evaluated.predictions.predicted_N[row]
        assert answer[0]["probability"] == pytest.approx(float(evaluated.predictions.probability_N[row]), abs=1e-4)
        status, body = asked.get(f"/heat/{TRAIN}?run=run&output=3")
        assert (status, Image.open(io.BytesIO(body)).mode) == (200, "RGB")
        assert asked.get("/augmented/3/1?run=run")[0] == 200
    with site(out, runs=[tmp_path / "run"]) as asked:
        # From the run's folder now, and computed anew once the weights are others.
        kept = tmp_path / "run" / "view-predictions.parquet"
        before = kept.stat().st_mtime_ns
        assert asked.json("/api/run?run=run")["matrix"] == found["matrix"]
        assert kept.stat().st_mtime_ns == before
    best = tmp_path / "run" / "best.pt"
    best.touch()
    with site(out, runs=[tmp_path / "run", tmp_path / "run"]) as asked:
        assert asked.json("/api/dataset")["runs"] == ["run", "run-2"]
        asked.json("/api/run?run=run")
        assert kept.stat().st_mtime_ns != before


@pytest.mark.slow
def test_the_nearest_in_features_are_those_of_the_vectors(out: Path, tmp_path: Path) -> None:
    keys = [imgdata.open(out)["train"].index.row(position).key for position in range(TRAIN)]
    vectors = np.random.default_rng(0).normal(size=(TRAIN, 8)).astype(np.float32)
    np.savez(tmp_path / "features.npz", features=vectors, key=np.array(keys), label=np.zeros(TRAIN), classes=["a"])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit[5]
    alike[5] = -2
    with site(out, features=[tmp_path / "features.npz"]) as asked:
        found = asked.json("/api/nearest/5")["nearest"]
        assert [one["number"] for one in found] == np.argsort(-alike)[:12].tolist()
        assert asked.json(f"/api/nearest/{TRAIN + 1}")["nearest"] == []
