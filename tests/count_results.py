#!/usr/bin/env python3
"""Prints 'passed failed skipped' summed over the closing lines of ctest, pytest and './dev fuzz' in a log."""
import re
import sys

passed = failed = skipped = 0
for line in open(sys.argv[1], errors="replace"):
    ctest = re.match(r"\d+% tests passed, (\d+) tests failed out of (\d+)", line)
    plain = re.match(r"(\d+) passed, (\d+) failed, (\d+) skipped$", line)
    pytest = re.match(r"(?=.*\b(?:passed|failed|error|errors|skipped)\b).* in \d+[.\d]*s", line)
    if re.match(r"\s*\d+ - .* \(Skipped\)$", line):  # ctest lists them, and counts them as passed
        passed, skipped = passed - 1, skipped + 1
    elif ctest:
        bad, total = map(int, ctest.groups())
        passed, failed = passed + total - bad, failed + bad
    elif plain:
        p, f, s = map(int, plain.groups())
        passed, failed, skipped = passed + p, failed + f, skipped + s
    elif pytest:
        count = lambda word: sum(int(n) for n in re.findall(rf"(\d+) {word}", line))
        passed, failed, skipped = passed + count("passed"), failed + count("failed") + count("error"), skipped + count("skipped")
print(passed, failed, skipped)
