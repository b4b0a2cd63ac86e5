"""`imgdata bench`: what comes out, in which forms, what is left out and what is refused."""

import dataclasses
import json
import re
import shlex

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from imgdata_cli.commands.bench import command

import imgdata
from imgdata import recipes
from imgdata.errors import ImgdataError, OptionError, ShardError
from imgdata.measure.bench import BenchOptions, bench, one
from imgdata.measure.bench.job import OURS
from imgdata.measure.bench.options import ready_recipe
from imgdata.measure.bench.peers import PEERS
from imgdata.measure.bench.processes import run_together
from imgdata.measure.bench.result import figures, peer_figures
from imgdata.recipes.presets import PRESETS
from support.bench_jobs import QUICK, measured
from support.loaders import SAMPLES, damaged, dataset

AS_WORDS = shlex.split(BenchOptions(**QUICK).command("out"))[3:]


def run(*arguments):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], env={"COLUMNS": "100"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def quick(folder, *arguments):
    return run(folder, *AS_WORDS, "--quiet", *arguments)


# --- the whole way -----------------------------------------------------------------------------------------------


def test_json_has_every_figure_and_what_is_needed_to_repeat_it(images):
    result = json.loads(quick(images, "--backend", "cpu", "--dtype", "uint8", "--json").stdout)
    for name in ("images_per_s", "cpu_ms_per_image", "p50_ms", "p95_ms", "p99_ms", "first_batch_s", "mb_per_s"):
        assert result[name] > 0, name
    assert result["p50_ms"] <= result["p95_ms"] <= result["p99_ms"]
    assert result["images_per_cpu_s"] == pytest.approx(1000 / result["cpu_ms_per_image"])
    index = imgdata.open(images)["train"].index
    assert result["mb_per_s"] == pytest.approx(result["images_per_s"] * index.array("size").mean() / 1e6)
    assert result["peak_mb"] > 50
    assert result["gpu_mb"] is None
    expected = {"backend": "cpu", "device": "cpu", "batch_size": 8, "threads": 1, "dtype": "uint8", "ranks": 1}
    assert {name: result[name] for name in expected} == expected
    assert result["dataset"]["samples"] == SAMPLES
    assert result["dataset"]["batches_per_epoch"] == SAMPLES // 8
    assert result["recipe"]["content"] == recipes.imagenet_train(16).to_dict()
    assert result["devices"] == {"cpu": result["images_per_s"]}
    assert result["versions"]["torch"] == torch.__version__
    assert result["machine"]["cores"] >= 1
    assert result["peers"] == []
    assert result["warm_up_batches"] >= one.WARM_UP
    assert result["command"].startswith(f"imgdata bench {images} --size 16 --backend cpu")


def test_bad_images_are_counted_and_a_loader_that_fails_costs_the_others_nothing(tmp_path, monkeypatch):
    folder = dataset(tmp_path, {number: damaged(number) for number in range(0, 24, 2)}, 24)
    real = run_together

    def run_ours(jobs, limit_s):
        if jobs[0].loader != OURS:
            raise ImgdataError("its process ended with 1: no memory")
        return real(jobs, limit_s=limit_s)

    monkeypatch.setattr("imgdata.measure.bench.run.run_together", run_ours)
    result = bench(folder, BenchOptions(**{**QUICK, "rounds": 2}, backend="cpu", compare=("torchvision",)))
    assert "12 images could not be decoded; others took their places" in result.notes
    assert result.peers == ()
    assert str(result).startswith("command   imgdata bench ")
    assert "<pre" in result._repr_html_()
    assert result.left_out == {"torchvision": "failed: its process ended with 1: no memory"}
    assert result.notes[-1] == "torchvision left out: failed: its process ended with 1: no memory"


def test_the_resident_backend_reads_no_bytes_and_says_so(one_size):
    output = quick(one_size, "--recipe", "imagenet_eval", "--backend", "resident", "--json").stdout
    result = json.loads(output)
    assert result["backend"] == "resident"
    assert result["mb_per_s"] is None
    assert any("decoded the images before the first batch" in note for note in result["notes"])
    assert result["dataset"]["batches_per_epoch"] == 3


def test_all_names_every_other_loader_and_says_why_one_is_left_out(images, monkeypatch):
    for name, peer in PEERS.items():
        refused = dataclasses.replace(peer, refuses=lambda *_, name=name: f"{name} is not for this machine")
        monkeypatch.setitem(PEERS, name, refused)
    result = json.loads(quick(images, "--compare", "all", "--json").stdout)
    assert result["peers"] == []
    assert set(result["left_out"]) == set(PEERS) - {"dali-fused"}


@pytest.mark.gpu
def test_a_gpu_has_its_memory_and_its_own_time(images):
    # The decoder of `dali-fused` ends its process on some GPUs, and TorchCodec may be missing.
    names = [
        name
        for name in ("torchvision", "torchvision-batched", "torchcodec", "dali")
        if PEERS[name].refuses(recipes.imagenet_train(16), "float32", "cuda:0") is None
    ]
    result = bench(images, BenchOptions(**QUICK, all_gpus=True, compare=tuple(names)))
    assert [peer.name for peer in result.peers] == names
    assert all(peer.gpu_mb is not None for peer in result.peers)
    assert list(result.devices) == [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    assert result.figures.images_per_s == pytest.approx(sum(result.devices.values()))
    assert result.figures.gpu_mb is not None
    assert 0 < result.figures.p50_ms <= result.figures.p99_ms
    assert result.left_out == {}


@pytest.mark.gpu
def test_a_decoder_that_ends_its_process_is_left_out_and_the_others_keep_their_figures(images):
    result = bench(images, BenchOptions(**QUICK, device="cuda:0", compare=("dali-fused", "torchvision-batched")))
    # Whether it does depends on the GPU.
    assert set(result.left_out) <= {"dali-fused"}
    assert "torchvision-batched" in [peer.name for peer in result.peers]


# --- tables --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def some_result(images):
    """A result with made-up figures: a run for each of its loaders would take too long."""
    slow, fast = measured(images_per_s=812.5, cpu_s=1.9), measured(images_per_s=123_456.7, cpu_s=0.9)
    peer = peer_figures([slow], [fast], name="webdataset", configuration="as it comes", mean_bytes=80_000.0)
    result = bench(images, BenchOptions(**QUICK, backend="cpu"))
    fields = {"figures": figures([fast], mean_bytes=80_000.0), "peers": (peer,), "notes": ("not counted: much",)}
    return dataclasses.replace(result, **fields)


@pytest.fixture
def shown(some_result, monkeypatch):
    """What the command prints of `some_result`."""
    monkeypatch.setattr("imgdata.measure.bench.bench", lambda out, options, progress: some_result)
    return lambda *arguments: run("out", *arguments).stdout.splitlines()


def test_the_table_has_a_head_a_line_for_each_loader_and_notes(shown, some_result):
    lines = shown()
    assert [line.split()[0] for line in lines[:6]] == ["command", "machine", "versions", "dataset", "recipe", "loader"]
    assert lines[0].endswith(some_result.command)
    head, ours_line, theirs, *_, note = lines[7:]
    assert max(map(len, (head, ours_line, theirs))) <= 100
    assert head.split()[:4] == ["loader", "images/s", "per", "core"]
    assert ours_line.split()[:3] == ["imgdata", "(cpu)", "123,457"]
    assert theirs.split()[:2] == ["webdataset", "812"]
    assert theirs.split()[-1] == "151.95"
    assert note == "- not counted: much"


def test_of_a_store_hits_bytes_and_waiting_have_columns(some_result):
    kept = measured(cache_hits=0.975, fetched_mb_per_s=12.34, store_wait_s=1.26)
    of_store = dataclasses.replace(some_result, figures=figures([kept], mean_bytes=80_000.0), peers=())
    assert [word for word in ("hits", "fetched MB/s", "store s") if word in str(some_result)] == []
    times = str(of_store).partition("p50 ms")[2].splitlines()
    assert times[0].split() == ["p95", "p99", "first", "s", "hits", "fetched", "MB/s", "store", "s"]
    assert times[1].split()[-3:] == ["98%", "12.3", "1.3"]
    assert of_store.to_dict()["cache_hits"] == 0.975


@pytest.mark.parametrize(
    ("shards", "where"), [(0, "in files that are not sharded"), (1, "in 1 shard"), (2_000, "in 2,000 shards")]
)
def test_the_head_says_where_the_images_are(some_result, shards, where):
    result = dataclasses.replace(some_result, dataset={**some_result.dataset, "shards": shards})
    assert f" kB {where}\n" in str(result)


def test_on_a_narrow_screen_no_figure_is_cut_off(shown, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    result = CliRunner().invoke(command, ["out"], env={"COLUMNS": "80"})
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)
    tables = [line.split() for line in plain.splitlines() if line.startswith("loader  ") and "batches of" not in line]
    assert [words[-1] for words in tables] == ["ours/its", "s"]
    assert "…" not in plain


def test_markdown_can_be_pasted(shown):
    lines = shown("--markdown")
    assert lines[0].startswith("- command: `imgdata bench ")
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert table[1] == "|---|" + "--:|" * (table[0].count("|") - 2)
    assert table[3].startswith("| webdataset | 812 | ")
    assert lines[-1] == "- not counted: much"


def test_with_several_gpus_each_has_a_line(shown, some_result, monkeypatch):
    of_two = dataclasses.replace(
        some_result,
        devices={"cuda:0": 1000.0, "cuda:1": 900.0},
        figures=figures([measured(gpu_mb=512.0)], mean_bytes=1),
    )
    monkeypatch.setattr("imgdata.measure.bench.bench", lambda out, options, progress: of_two)
    lines = shown()
    assert "GPU MB" in lines[7]
    assert max(map(len, lines[7:12])) <= 100
    assert [line.split() for line in lines[9:11]] == [["cuda:0", "1,000"], ["cuda:1", "900"]]


# --- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compare": ("tf.data",)}, r"compare must be of torchvision, .*, dali-fused, got 'tf.data'"),
        ({"compare": ("dali", "dali")}, "compare must name each loader once, got dali, dali"),
        ({"rounds": 0}, "rounds must be an integer of at least 1, got 0"),
        ({"ranks": True}, "ranks must be an integer of at least 1, got True"),
        ({"seconds": 0.0}, "seconds must be above 0 and at most 3600, got 0.0"),
        ({"seconds": float("nan")}, "seconds must be above 0"),
        ({"all_gpus": True, "ranks": 2}, "all_gpus must come without ranks and device"),
        ({"all_gpus": True, "device": "cpu"}, "got ranks 1 and device 'cpu'; leave them out"),
    ],
)
def test_options_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(OptionError, match=message):
        BenchOptions(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "test"}, "split must be one of train, got 'test'"),
        ({"batch_size": 64}, "batch_size must be at most 60, as train has 60 samples, got 64; make it smaller"),
        ({"batch_size": 16, "ranks": 4}, "batch_size must be at most 15, as train has 60 samples for 4 ranks, got 16"),
        ({"backend": "fast"}, "backend must be one of auto, cpu, dali, resident, got 'fast'"),
        ({"dtype": "int8"}, "dtype must be one of .*, got 'int8'"),
        ({"device": "tpu"}, "device must be auto, cpu, cuda.*, got 'tpu'"),
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"backend": "resident"}, "backend 'resident' keeps one window of each picture"),
        ({"recipe": "plane"}, "recipe must be one of imagenet, .*, or a .json file, got 'plane'"),
        ({"recipe": "cifar_train", "size": 16}, "cifar_train must have its own size, 32, got size 16; leave it out"),
        ({"recipe": "nowhere.json", "size": None}, "nowhere.json: the recipe can't be read: No such file"),
        ({"recipe": recipes.cifar_eval(), "size": 8}, "size must be left out with a recipe that has its own, got 8"),
    ],
)
def test_what_the_data_or_the_machine_can_not_do_is_said_before_a_process_starts(
    images, monkeypatch, settings, message
):
    def never(jobs, limit_s=None):
        raise AssertionError("no process may start")

    monkeypatch.setattr("imgdata.measure.bench.run.run_together", never)
    with pytest.raises(OptionError, match=message):
        bench(images, BenchOptions(**{**QUICK, **settings}))


@pytest.mark.parametrize(("ranks", "batch_size"), [(1, 60), (4, 15)])
def test_without_a_word_a_small_split_is_one_batch(images, monkeypatch, ranks, batch_size):
    monkeypatch.setattr("imgdata.measure.bench.run.run_together", lambda jobs, limit_s=None: [measured()] * len(jobs))
    settings = {**QUICK, "batch_size": None, "ranks": ranks}
    result = bench(images, BenchOptions(**settings))
    assert result.batch_size == batch_size
    assert "--batch-size" not in result.command


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_what_needs_one_is_refused(images):
    with pytest.raises(OptionError, match="device must be cpu where PyTorch finds no GPU, got 'cuda'"):
        bench(images, BenchOptions(**QUICK, device="cuda"))
    with pytest.raises(OptionError, match="all_gpus needs a GPU that PyTorch can use, got none; leave it out"):
        quick(images, "--all-gpus")


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(ShardError, match=r"no dataset\.json and no tars in it"):
        bench(tmp_path)


SETTINGS = {
    "split": st.sampled_from(["train", "val"]),
    "recipe": st.sampled_from([*PRESETS, "my recipes/a.json"]),
    "size": st.none() | st.integers(1, 512),
    "backend": st.sampled_from(["auto", "cpu", "dali", "resident"]),
    "batch_size": st.none() | st.integers(1, 4096),
    "threads": st.none() | st.integers(1, 64),
    "dtype": st.sampled_from([None, "uint8", "float32"]),
    "seconds": st.sampled_from([10.0, 0.5, 60.0]),
    "rounds": st.integers(1, 9),
    "compare": st.lists(st.sampled_from(list(PEERS)), unique=True).map(tuple),
    "all_gpus": st.booleans(),
}


@given(settings=st.fixed_dictionaries(SETTINGS))
def test_the_command_that_is_printed_measures_the_same_again(settings):
    options = BenchOptions(**settings)
    name, subcommand, *arguments = shlex.split(options.command("my data/out"))
    assert (name, subcommand) == ("imgdata", "bench")
    given_again = command.make_context("bench", arguments).params
    assert str(given_again.pop("dataset")) == "my data/out"
    compare = tuple(word for word in given_again.pop("compare").split(",") if word)
    for printed in ("markdown", "quiet", "as_json"):
        assert given_again.pop(printed) is False
    # How raw images are read is said to `imgdata.open`.
    measured = {name: value for name, value in given_again.items() if name in SETTINGS}
    assert BenchOptions(compare=compare, **measured) == options


def test_the_help_names_all_loaders():
    assert ", ".join(PEERS) in next(option.help for option in command.params if option.name == "compare")


def test_a_recipe_comes_by_name_as_a_file_and_as_it_is(tmp_path):
    recipe = recipes.Recipe(recipes.Resize(size=(8, 9)), recipes.Grayscale(p=0.5))
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe.to_dict()))
    assert ready_recipe(BenchOptions(recipe=str(file))) == recipe
    assert ready_recipe(BenchOptions(recipe=recipe)) is recipe
    assert ready_recipe(BenchOptions(recipe="plain", size=48)) == recipes.imagenet_eval(48, resize=48)
    assert ready_recipe(BenchOptions(recipe="cifar", size=None)) == recipes.cifar_train()
    assert ready_recipe(BenchOptions(recipe="classifier_eval", size=48)) == recipes.classifier_eval(48)
    assert BenchOptions(recipe=recipe).command("out") == "imgdata bench out --recipe RECIPE.json"
    file.write_text("{")
    with pytest.raises(OptionError, match=r"recipe\.json: must be JSON as `Recipe.to_dict` gives it"):
        ready_recipe(BenchOptions(recipe=str(file)))


def test_several_views_of_a_picture_are_refused():
    with pytest.raises(OptionError, match="one picture of each sample here, got 2 views"):
        ready_recipe(BenchOptions(recipe=recipes.simclr(32)))
