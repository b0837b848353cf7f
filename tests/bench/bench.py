"""The whole path of a request, from a visitor's TLS connection to the service and back, measured next to other programs.

All contestants run at once and take turns in each round, so that a drift of the machine's speed slows all of them. The
order rotates between rounds. The figures are medians: compare them as ratios within one run."""

import argparse
import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import contestants
import disturbance
import machine
import processors
import report
import workloads
from contestants import table as contestants_table
from origin import Origin
from workloads import table as workloads_table


RESULTS = Path(__file__).with_name("RESULTS.md")
# What a program that does not start or does not answer raises.
FAILURES = (AssertionError, OSError, subprocess.SubprocessError)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, and smaller numbers of what stands idle")
    parser.add_argument("--rounds", type=int, help="default: 5; with --quick 1")
    parser.add_argument("--seconds", type=int, help="each measurement; default: 4; with --quick 2")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="names of contestants, in part")
    parser.add_argument("--workloads", nargs="*", metavar="NAME", help="names of workloads, in part")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="cokd and cok-client of another build")
    parser.add_argument("--add", action="store_true", help="keep the other workloads of an earlier report")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where the report goes")
    parser.add_argument(
        "--disturbed", type=float, default=8, metavar="PERCENT",
        help="of a processor that other work may take; above it a measurement is repeated; default: 8",
    )
    parser.add_argument("--results", action="store_true", help="write the report into RESULTS.md as well")
    parser.add_argument("--list", action="store_true", help="name all workloads and contestants, and end")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 5)
    arguments.seconds = arguments.seconds or (2 if arguments.quick else 4)
    arguments.output = arguments.output or Path(os.environ.get("COK_BENCH_OUTPUT", "target/bench"))
    return arguments


def first_line(why):
    return (str(why).strip() or type(why).__name__).splitlines()[0]


def start_all(wanted, folder, origin, running, absent):
    """Starts contestants. Those that can't start are named with the reason."""
    for number, entry in enumerate(wanted.items()):
        try:
            running.append(contestants.start(entry, folder / f"contestant-{number}", origin))
        except (contestants.Absent, *FAILURES) as why:
            absent[entry[0]] = first_line(why)
            print(f"left out: {entry[0]}: {why}")


def run(workload, bench, arguments):
    """Measures all subjects of a workload in turn. Returns its Result."""
    most = arguments.disturbed / 100 if workload.judged else float("inf")
    with workload.subjects(bench) as subjects:
        result = report.Result(
            workload, [(each.name, each.group) for each in subjects], {each.name: [] for each in subjects}
        )
        for number in range(min(workload.rounds or arguments.rounds, arguments.rounds)):
            first = number % len(subjects)
            for subject in subjects[first:] + subjects[:first]:
                try:
                    measured = disturbance.undisturbed(subject.measure, most, workload.processors)
                except FAILURES as why:
                    result.failed[subject.name] = first_line(why)
                    continue
                result.measurements[subject.name].append(measured)
    return result


def main():
    arguments = parse()
    wanted = contestants_table.choose(arguments.only, arguments.against)
    chosen = workloads_table.choose(arguments.workloads)
    if arguments.list:
        print("workloads:", *(each.name for each in chosen), "contestants:", *wanted, sep="\n  ")
        return
    if len(processors.ALL) < 2:
        raise SystemExit("the benchmark needs two processors: one for the load, one for the contestants")
    absent = {} if arguments.only else dict(contestants_table.LEFT_OUT)
    running, generate = [], Path(os.environ["COK_GENERATE"])
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        folder = Path(folder)
        # The user's shell may be of the same session.
        stack.callback(processors.prefer, nice=processors.prefer())
        origin = Origin(folder / "origin", generate)
        stack.callback(origin.stop)
        stack.callback(lambda: [each.stop() for each in reversed(running)])
        if any(each.compared for each in chosen):
            start_all(wanted, folder, origin, running, absent)
        bench = workloads.Bench(folder, origin, running, arguments.seconds, arguments.quick, generate)
        said = f"{arguments.rounds} rounds of {arguments.seconds} s, load {os.getloadavg()[0]:.2f} before"
        written = report.Report(
            arguments.output, machine.describe(arguments.against), said, absent, workloads_table.WORKLOADS, arguments.add
        )
        for workload in chosen:
            if workload.compared and not running:
                continue
            try:
                result = run(workload, bench, arguments)
            except FAILURES as why:
                absent[workload.name] = first_line(why)
                print(f"left out: {workload.name}: {why}", flush=True)
                written.write()
                continue
            written.add(result)
            print(result.words(), end="\n\n", flush=True)
    print(written.goals())
    if arguments.results:
        written.fill(RESULTS)
    print(f"\nThe report is in {arguments.output}")


if __name__ == "__main__":
    main()
