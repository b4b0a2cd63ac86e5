"""Which part a process writes follows from `I/N`, or from what a scheduler puts into the environment."""

import pytest

from imgdata import OptionError
from imgdata.shards.part_numbers import Cut, array_text, parse_part, part_from_environment


def slurm(task, tasks, first, last, step=1):
    values = {"ID": task, "COUNT": tasks, "MIN": first, "MAX": last, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("environment", "part", "cut"),
    [
        (slurm(0, 64, 0, 63), 0, Cut(64)),
        (slurm(63, 64, 0, 63), 63, Cut(64)),
        (slurm(1, 64, 1, 64), 0, Cut(64, first=1)),
        (slurm(64, 64, 1, 64), 63, Cut(64, first=1)),
        (slurm(14, 4, 8, 17, step=3), 2, Cut(4, first=8, step=3)),
        (slurm(5, 1, 5, 5), 0, Cut(1, first=5)),
        ({"RANK": "3", "WORLD_SIZE": "8"}, 3, Cut(8)),
        # A job of an array whose tasks are torchrun's: the array cuts.
        ({**slurm(2, 4, 0, 3), "RANK": "0", "WORLD_SIZE": "1"}, 2, Cut(4)),
    ],
)
def test_a_part_is_numbered_by_its_scheduler(environment, part, cut):
    assert part_from_environment(environment, None) == (part, cut)


@pytest.mark.parametrize(
    ("environment", "noted", "part"),
    [
        (slurm(17, 2, 3, 17), Cut(64), 17),
        (slurm(3, 1, 3, 3), Cut(64), 3),
        (slurm(4, 2, 3, 4), Cut(64), 4),
        (slurm(64, 2, 1, 64), Cut(64, first=1), 63),
        (slurm(14, 2, 8, 14, step=6), Cut(4, first=8, step=3), 2),
    ],
)
def test_a_smaller_array_of_the_same_numbers_writes_those_parts_again(environment, noted, part):
    assert part_from_environment(environment, noted) == (part, noted)


@pytest.mark.parametrize(
    ("environment", "noted", "part", "cut"),
    [
        (slurm(3, 64, 0, 63), Cut(64), 3, Cut(64)),
        (slurm(100, 128, 0, 127), Cut(64), 100, Cut(128)),
        (slurm(65, 2, 64, 65), Cut(64), 1, Cut(2, first=64)),
    ],
)
def test_another_array_is_a_cut_of_its_own(environment, noted, part, cut):
    assert part_from_environment(environment, noted) == (part, cut)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "neither SLURM_ARRAY_TASK_ID nor RANK and WORLD_SIZE are set"),
        ({"RANK": "3"}, "neither"),
        ({"RANK": "8", "WORLD_SIZE": "8"}, "part must be 0/8 to 7/8, got 8/8"),
        ({"RANK": "x", "WORLD_SIZE": "8"}, "RANK must be a number, got 'x'"),
        (slurm(17, 2, 3, 17), "an array of the 2 tasks 3 to 17 doesn't tell which part task 17 is; give --part I/N"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "SLURM_ARRAY_TASK_COUNT isn't set, .*; give --part I/N"),
    ],
)
def test_numbers_without_a_meaning_are_one_clear_message(environment, message):
    with pytest.raises(OptionError, match=message):
        part_from_environment(environment, None)


@pytest.mark.parametrize("text", ["3", "3/", "/3", "a/b", "-1/3", "3/64/2", "1.5/3"])
def test_a_part_is_a_number_of_a_number(text):
    with pytest.raises(OptionError, match="part must be I/N, such as 3/64"):
        parse_part(text)


@pytest.mark.parametrize(
    ("text", "message"), [("3/3", "0/3 to 2/3, got 3/3"), ("0/0", "1 or more parts, such as 0/1, got 0/0")]
)
def test_a_part_is_below_the_number_of_parts(text, message):
    with pytest.raises(OptionError, match=message):
        parse_part(text)


@pytest.mark.parametrize(
    ("numbers", "text"), [([3, 17], "3,17"), ([0, 1, 2], "0-2"), ([5, 1, 2, 2, 9], "1-2,5,9"), ([], "")]
)
def test_numbers_are_written_as_slurm_takes_them(numbers, text):
    assert array_text(numbers) == text
