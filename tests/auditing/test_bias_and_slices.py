"""What gives the label away without the object in the picture, and where a network is weak."""

import numpy as np

import imgdata
from imgdata.auditing import bias, slices
from imgdata.auditing.columns import index_columns, json_columns, number_column, word_column
from imgdata.auditing.samples import samples_of
from imgdata.views import open_view
from support.pictures import encode
from support.rawdata import encoded, picture


def written(folder, rows, classes):
    """Return dataset and samples of rows of (image, label, fields)."""
    with imgdata.Writer(folder, classes=classes) as writer:
        for image, label, *fields in rows:
            writer.write(image, label, split="train", **({"json": fields[0]} if fields else {}))
    dataset = imgdata.open(folder)
    return dataset, samples_of([open_view(dataset, "train")])


def messages(outcome, what):
    return [finding.message for finding in outcome.findings if finding.what == what]


def test_a_class_of_another_format_is_told_and_a_tree_without_pictures_finds_it(tmp_path):
    rows = [
        (encode(picture(number), "PNG") if number % 3 == 0 else encoded(number), number % 3) for number in range(90)
    ]
    _, samples = written(tmp_path / "out", rows, ["cat", "dog", "owl"])
    outcome = bias.find(samples, index_columns(samples))
    assert "class 'cat' is 100% png (format), the others are 0%" in messages(outcome, "class of one kind")
    (blind,) = messages(outcome, "without the picture")
    # One class of three is known for sure, the other two are alike.
    assert outcome.figures["tree"]["accuracy"] > 0.55
    assert "chance 33%" in blind


def test_a_class_of_other_sizes_is_told(tmp_path):
    rows = [(encoded(number % 4, (30 + 20 * (number % 2) + number % 7, 20)), number % 2) for number in range(60)]
    _, samples = written(tmp_path / "out", rows, ["near", "far"])
    outcome = bias.find(samples, index_columns(samples))
    assert any(message.startswith("class 'near': width is smaller") for message in messages(outcome, "class apart"))
    tells = {row["column"]: row["tells"] for row in outcome.figures["columns"]}
    assert tells["width"] > 0.7
    assert any(message.startswith("width alone tells") for message in messages(outcome, "column tells the class"))


def test_pictures_that_differ_by_chance_alone_have_no_bias(tmp_path):
    rows = [(encoded(number % 5, (24, 16)), (number * 7 + number // 5) % 2) for number in range(80)]
    _, samples = written(tmp_path / "out", rows, ["a", "b"])
    noise = np.random.default_rng(0).normal(size=80)
    outcome = bias.find(samples, [number_column("noise", noise)])
    assert outcome.findings == ()
    assert outcome.figures["columns"][0]["tells"] < 0.1


def test_labels_of_one_class_have_no_bias_and_that_is_said(tmp_path):
    _, samples = written(tmp_path / "out", [(encoded(0), 0)] * 6, ["a", "b"])
    outcome = bias.find(samples, index_columns(samples))
    assert (outcome.findings, len(outcome.notes)) == ((), 1)


def test_names_of_files_count_without_numbers_folders_and_the_class(tmp_path):
    folder = tmp_path / "raw"
    for label, form in (("cat", "IMG_{:04}.jpg"), ("dog", "dog_{:02}.jpg"), ("owl", "IMG_{:04}.jpg")):
        (folder / "train" / label).mkdir(parents=True)
        for number in range(6):
            (folder / "train" / label / form.format(number)).write_bytes(encoded(number))
    imgdata.shard(folder, tmp_path / "out", workers=1)
    dataset = imgdata.open(tmp_path / "out")
    samples = samples_of([open_view(dataset, "train")])
    names = next(column for column in index_columns(samples) if column.name == "form of the name")
    assert set(names.words) == {"IMG_0.jpg", "*_0.jpg"}


FIELDS = [
    {"camera": "A" if number < 30 else "B", "exposure": number / 60, "caption": f"a {number}"} for number in range(60)
]


def test_metadata_columns_are_words_or_numbers_and_captions_are_none(tmp_path):
    rows = [(encoded(number % 3), number % 2, fields) for number, fields in enumerate(FIELDS)]
    dataset, samples = written(tmp_path / "out", rows, ["a", "b"])
    columns = {column.name: column for column in json_columns(samples, dataset, lambda done, total: None)}
    assert set(columns) == {"camera", "exposure"}
    assert columns["camera"].words == ("A", "B")
    exposures = [dataset["train"][position].fields["exposure"] for position in range(60)]
    assert columns["exposure"].value_M.tolist() == exposures


def test_the_weakest_slice_leads_and_three_samples_do_not(tmp_path):
    rows = [(encoded(number % 3), number % 2) for number in range(200)]
    _, samples = written(tmp_path / "out", rows, ["a", "b"])
    camera = word_column("camera", ["good", "bad", "rare"], np.array([0] * 137 + [1] * 60 + [2] * 3))
    predicted = samples.label_M.copy()
    predicted[137:180] = 1 - predicted[137:180]
    predicted[197:] = 1 - predicted[197:]
    outcome = slices.find(samples, [camera], predicted)
    (finding,) = outcome.findings
    assert finding.message == "camera bad: the network is right in 28% of 60 samples, and in 77% of all"
    assert [row["slice"] for row in outcome.figures["slices"]] == ["bad", "rare", "good"]


def test_slices_without_predictions_are_counts(tmp_path):
    rows = [(encoded(number % 3), 0) for number in range(8)]
    _, samples = written(tmp_path / "out", rows, ["a"])
    outcome = slices.find(samples, [number_column("year", np.arange(2001, 2009))])
    assert [(row["slice"], row["samples"]) for row in outcome.figures["slices"]] == [
        ("2,001 to 2,002", 2),
        ("2,003 to 2,004", 2),
        ("2,005 to 2,006", 2),
        ("2,007 to 2,008", 2),
    ]
    assert outcome.figures["accuracy"] is None
