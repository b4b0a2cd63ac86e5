"""Neighbours in feature space: exact, by usearch, and as findings."""

import numpy as np
import pytest

from imgdata.auditing.neighbours import WHAT, find, nearest, unit
from imgdata.auditing.vectors import Vectors
from support.label_sets import labelled_samples


@pytest.fixture
def made_vectors():
    generator = np.random.Generator(np.random.Philox(key=[9, 9]))
    return generator.standard_normal((500, 24)).astype(np.float32)


def brute(unit_ND, count):
    likeness_NN = unit_ND.astype(np.float64) @ unit_ND.T.astype(np.float64)
    np.fill_diagonal(likeness_NN, -2)
    return np.argsort(-likeness_NN, axis=1)[:, :count]


def test_the_nearest_are_those_of_all_pairs(made_vectors):
    unit_ND = unit(made_vectors)
    told = []
    row_QK, distance_QK = nearest(unit_ND, np.arange(500), 5, lambda done, total: told.append((done, total)))
    assert (row_QK == brute(unit_ND, 5)).all()
    assert (np.diff(distance_QK, axis=1) >= 0).all()
    assert told == [(500, 500)]


def test_usearch_finds_nearly_all_of_them_and_none_twice(made_vectors):
    unit_ND = unit(made_vectors)
    row_QK, distance_QK = nearest(unit_ND, np.arange(500), 5, exact_rows=100)
    right = [len(set(one) & set(other)) for one, other in zip(row_QK.tolist(), brute(unit_ND, 5).tolist(), strict=True)]
    assert np.mean(right) > 4.5
    assert all(len(set(row)) == 5 and number not in row for number, row in enumerate(row_QK.tolist()))
    np.testing.assert_allclose(distance_QK[3], 1 - unit_ND[row_QK[3]] @ unit_ND[3], atol=1e-5)


@pytest.mark.parametrize("exact_rows", [1000, 100])
def test_pairs_that_look_alike_are_findings_to_look_at(made_500, made_vectors, exact_rows):
    made_vectors[7] = made_vectors[3]
    made_vectors[100] = made_vectors[200] + 0.02
    found = find(
        made_500, Vectors(vector_KD=made_vectors, number_K=np.arange(500), what="made up"), exact_rows=exact_rows
    )
    pairs = [(one.what, one.place.position, one.other.position, one.proposal) for one in found.findings]
    assert pairs == [(WHAT[0], 7, 3, "look"), (WHAT[1], 200, 100, "look")]
    assert found.findings[0].score == 1 > found.findings[1].score > 0.9
    assert found.figures["pairs"] == 2
    assert found.figures["exact"] == (exact_rows == 1000)


def test_two_pictures_are_too_few(made_500):
    found = find(made_500, Vectors(vector_KD=np.eye(2, dtype=np.float32), number_K=np.arange(2), what="made up"))
    assert found.findings == ()
    assert "at least 3 pictures" in found.notes[0]


@pytest.fixture(scope="module")
def made_500(tmp_path_factory):
    return labelled_samples(tmp_path_factory.mktemp("made") / "out", [number % 2 for number in range(500)])
