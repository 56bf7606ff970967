"""What became of another project's suite: its pytest report against the list of what is left out, each with its reason."""
import re
import xml.etree.ElementTree


def read(report):
    """{"file::test": ("passed" | "failed" | "skipped", message)} of pytest's XML."""
    results = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname').split('.')[-1]}::{case.get('name')}"
        bad = next((child for child in case if child.tag in ("failure", "error")), None)
        skipped = case.find("skipped")
        if bad is not None:
            results[name] = ("failed", " ".join((bad.get("message") or "").split()))
        elif skipped is not None:
            results[name] = ("skipped", skipped.get("message") or "")
        else:
            results[name] = ("passed", "")
    return results


def judge(results, left_out, alive, may_pass=()):
    """Prints what failed, what was left out and a closing line; returns the exit code.

    `left_out`: (regular expression on "file::test", reason), the first that matches counts. A test that is left out and
    passes is a failure, so that the list stays true, but for the reasons in `may_pass`.
    """
    passed, failed, counts = 0, 0, {}
    for name, (outcome, message) in sorted(results.items()):
        reason = next((why for pattern, why in left_out if re.match(pattern, name)), None)
        if reason is None and outcome == "skipped":
            reason = f"skipped by the suite itself: {message}"
        if reason is None and outcome == "passed":
            passed += 1
        elif reason is None:
            failed += 1
            print(f"FAILED  {name}: {message[:200]}")
        elif outcome == "passed" and reason not in may_pass:
            failed += 1
            print(f"FAILED  {name}: is left out although it passes ({reason})")
        else:
            counts[reason] = counts.get(reason, 0) + 1
    if not alive:
        failed += 1
        print("FAILED  the server ended")
    print("left out:" if counts else "nothing left out")
    for reason, count in sorted(counts.items()):
        print(f"  {count:3d}  {reason}")
    print(f"{passed} passed, {failed} failed, {sum(counts.values())} skipped")
    return 1 if failed or not passed else 0
