"""Runs numbered random cases on some threads and reports each failure with its seed and number."""

import os
import random
import threading
import time

LONG = bool(os.environ.get("COK_LONG"))
# A run of one case: COK_MUTANT=seed/number.
ONE = os.environ.get("COK_MUTANT")
SEED = int(os.environ.get("COK_SEED", time.time_ns() if LONG else 14))
WORKERS = 4
MOST_FAILURES = 20


def cases(short):
    """Returns the number of cases: `short` of 5,000, or as many of 100,000 in the long form."""
    return short * 20 if LONG else short


def run(name, count, worker):
    """Calls `worker()` on each thread for a function `case(random, number)`, which returns what is wrong or None."""
    numbers, failures = iter(range(count)), []
    seed, _, only = ONE.partition("/") if ONE else (str(SEED), "", "")
    if only:
        numbers = iter([int(only)])
    lock = threading.Lock()

    def work():
        case = None
        while len(failures) < MOST_FAILURES:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                case = case or worker()
                wrong = case(random.Random(f"{name}/{seed}/{number}"), number)
            except Exception as why:  # a thread's failure must reach the test
                wrong = f"{type(why).__name__}: {why}"
            if wrong:
                failures.append(f"{name} COK_MUTANT={seed}/{number}: {wrong}")
                if LONG:
                    print(failures[-1], flush=True)

    start = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{name}: seed {seed}, {count} cases, {count / (time.monotonic() - start):.0f}/s", flush=True)
    assert not failures, "\n".join(failures)
