"""A machine with a GPU -> what every GPU path does and how fast it is there, as JSON: `python -m benchmarks.gpu`.

__main__   the command: which phases, what failed, the table of targets
phases     the phases in the order of their worth, with their limits
runner     a phase in a process of its own, which ends at its limit with all that it started
one        that process -> running: items of a phase, each noted as soon as it is known
machine, suite, loaders, end_to_end, faults, training: the phases
report     the phases' notes -> `benchmarks/results/gpu-CARD.json`
figures    the report -> the figures of `benchmarks.targets`
page       the reports -> the tables of docs/gpu.md
"""
