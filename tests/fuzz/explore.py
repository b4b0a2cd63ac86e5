"""`make explore`: every test of Hypothesis with new random examples, again and again, for as long as asked."""

import argparse
import os
import random
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from support.found_cases import FILE, cases  # noqa: E402


def main() -> None:
    """Run rounds of pytest until the time is over; exit with 1 if a test failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, help="of the first round; drawn by default, and printed")
    arguments, own = parser.parse_known_args()
    first = random.SystemRandom().randrange(10**9) if arguments.seed is None else arguments.seed
    until = time.time() + 60 * arguments.minutes
    before, failed = cases(), False
    for seed in count(first):
        if time.time() > until:
            break
        print(f"Seed {seed}, {max(0.0, until - time.time()) / 60:.1f} minutes left", flush=True)
        new = [case for case in cases() if case not in before]
        # A test that failed is not asked again.
        left_out = [f"--deselect={case['test']}" for case in new]
        command = [sys.executable, "-m", "pytest", "-m", "hypothesis", f"--hypothesis-seed={seed}", "-rfE", "-q"]
        done = subprocess.run(
            [*command, *left_out, *own], env=os.environ | {"IMGDATA_EXPLORE_UNTIL": str(until)}, check=False
        )
        failed = failed or done.returncode != 0
        if done.returncode > 1 or done.returncode < 0:
            break
    new = [case for case in cases() if case not in before]
    for case in new:
        print(f"{case['test']}: {case['example']}\n    {case['error']}")
    print(f"{len(new)} new cases in {FILE.name}" if new else "No new cases")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
