#!/usr/bin/env python3
"""Judges the output of the independent shared-memory probe: every failed check must be a known difference.

usage: judge_probe.py OUTPUT
"""
import sys

# Name of the check -> why our driver answers differently.
KNOWN = {}
PASSED_MIN = 600


def main(path):
    lines = open(path, encoding="utf-8", errors="replace").read().splitlines()
    failed = [line[len("FAIL "):].split(": ", 1)[0] for line in lines if line.startswith("FAIL ")]
    passed = sum(1 for line in lines if line.startswith("ok "))
    unknown = [name for name in failed if name not in KNOWN]
    for name in failed:
        print("difference: %s: %s" % (name, KNOWN.get(name, "NOT KNOWN")))
    fixed = [name for name in KNOWN if name not in failed]
    for name in fixed:
        print("no difference any more, take it off the list: %s" % name)
    print("probe: %d checks passed, %d known differences, %d unknown" % (passed, len(failed) - len(unknown), len(unknown)))
    return 1 if unknown or fixed or passed < PASSED_MIN else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
