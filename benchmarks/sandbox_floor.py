"""Where the CPU time of `print(1)` goes, and what does and does not make it less.

Each row is a process of its own that forks programs and waits for them. The rows take turns in
random order, so that all see the same machine, and are started several times, since where memory
happens to lie matters. Shown are CPU-ms and page faults of one program, those of the process that
forks among them: the mean over the starts of each one's best turn, for what else the machine does
only adds.
The first rows add one part of the sandbox each; the others change one thing in one of these, with
which they are compared. How far apart equal rows are, `nothing changed` tells.

    make bench-sandbox-floor ARGS="--starts 5 --rounds 14"        # as root
"""

import os
import resource
import sys

COUNT = 60  # programs in a turn
OF_ALL = 300  # where a sandbox's other processes count, whose time is told in hundredths of seconds
# What is shown, options of `prepare`, of Python, environment.
PARTS = (
    ("os.fork and os._exit in a bare Python", "bare", "-I -S"),
    ("the same with the worker's memory, as it was", "plain more"),
    ("the same with the worker's memory, as it is", ""),
    ("and print(1)", "print"),
    ("and the limit on CPU time and seccomp", "print jail"),
    ("Sandbox.arun, 64 at once", "library"),
    ("over HTTP, 64 at once", "http"),
)
TRIES = (
    ("nothing changed", "print"),
    ("libraries in five pieces, so code on small pages", "print apart"),
    ("constants of the linker kept read-only", "print relro"),
    ("code on small pages", "print smallcode"),
    ("modules that used to come along", "print more"),
    ("no modules for programs' sake", "print lean"),
    ("no gc.freeze", "print nofreeze"),
    ("garbage collection off", "print nogc"),
    ("PYTHONMALLOC=malloc (then on huge pages)", "print", "", "PYTHONMALLOC=malloc"),
    ("glibc.malloc.hugetlb=1", "print", "", "GLIBC_TUNABLES=glibc.malloc.hugetlb=1"),
    ("-X frozen_modules=off", "print", "-X frozen_modules=off"),
    ("-I -S", "print", "-I -S"),
    ("os.fork for libc's", "print osfork"),
    ("the interpreter taken apart at the end", "print finalize"),
    ("MADV_DONTFORK of libraries print never needs", "print dontfork"),
    ("a fork copies the tables of code pages", "print smallcode tables"),
    ("MADV_POPULATE_WRITE of what print writes to", "print hot"),
    ("the path of a program run 20 times before", "print warm"),
    ("8 forked, then 8 waited for", "print batch"),
    ("waited for by pidfd and poll", "print pidfd"),
    ("three new memory files for each", "print files"),
    ("seccomp in one part, not two", "print jail whole"),
)
# What came along with `importlib.abc` and `pathlib` until the sandbox did without them.
MORE = ("importlib.abc", "pathlib", "platform", "tempfile", "shutil", "bz2", "lzma", "zlib")
NEEDED = ("libpython", "/libc.so", "/ld-linux", "/bin/python", "_struct", "_ctypes", "libffi")
MADV_DONTFORK, MADV_POPULATE_WRITE, PAGE = 10, 23, 4096


def prepare(options):
    """Lay this process out as a worker; a function that runs `COUNT` programs."""
    if "bare" in options:
        return lambda: [os._exit(0) if (p := os.fork()) == 0 else os.waitpid(p, 0) for _ in RANGE]
    import gc
    import importlib
    import types

    source = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src/ctpo")
    for name, path in (("ctpo", source), ("ctpo.sandbox", source + "/sandbox")):
        sys.modules[name] = types.ModuleType(name)  # as the sandbox's launcher does
        sys.modules[name].__path__ = [path]
    from ctpo.sandbox.jail import kernel, memory, seccomp
    from ctpo.sandbox.server import program, zygote

    libc = kernel._libc
    for name in (() if "lean" in options else zygote.USUAL) + (MORE if "more" in options else ()):
        importlib.import_module(name)
    if "plain" not in options and "apart" not in options:
        memory.join_mappings(linked="relro" not in options)
    gc.collect()
    if "nofreeze" not in options:
        gc.freeze()
    if "nogc" in options:
        gc.disable()
    if "plain" not in options:
        memory.use_huge_pages()
        if "smallcode" not in options:
            memory.use_huge_pages_for_code()
    for start, end, access, name in mappings():
        if "dontfork" in options and name.startswith("/") and not any(n in name for n in NEEDED):
            libc.madvise(start, end - start, MADV_DONTFORK)
        if "tables" in options and access == "r-xp" and name.startswith("/"):
            with open("/proc/self/mem", "r+b", 0) as own:  # one page that is not the file's
                own.seek(start)
                own.write(kernel.ctypes.string_at(start, 1))
    interpreter = program.Interpreter()
    calls = seccomp.Filter(metadata=True)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    interpreter.enter()
    if "warm" in options:
        for _ in range(20):
            interpreter._execute("pass", program.FILENAME, echo=False)
            program._flush()
    ranges = []
    fork = os.fork if "osfork" in options else kernel.fork

    def start():
        pid = fork()
        if pid:
            return pid
        if "print" not in options:
            os._exit(0)
        for first, last in ranges:
            libc.madvise(first, last - first, MADV_POPULATE_WRITE)
        if "files" in options:
            for number in range(3):
                os.dup2(os.memfd_create("output"), 1 + number)
        if "jail" in options:
            resource.setrlimit(resource.RLIMIT_CPU, (11, 12))
            if "whole" in options:
                calls.install()
            calls.install_own(os.getpid())
        if "finalize" in options:
            print(1)
            raise SystemExit
        interpreter.run("print(1)")

    def wait(pid):
        if "pidfd" in options:
            poll, end = select.poll(), os.pidfd_open(pid)
            poll.register(end)
            poll.poll()
            os.close(end)
        os.waitpid(pid, 0)

    if "hot" in options:
        ranges = written(fork, interpreter)
    if "pidfd" in options:
        import select
    many = 8 if "batch" in options else 1
    return lambda: [[wait(p) for p in [start() for _ in range(many)]] for _ in RANGE[::many]]


RANGE = range(COUNT)


def mappings():
    with open("/proc/self/maps") as lines:
        for fields in map(str.split, lines):
            first, last = (int(part, 16) for part in fields[0].split("-"))
            yield first, last, fields[1], fields[5] if len(fields) > 5 else ""


def written(fork, interpreter):
    """Ranges of memory that a program comes to have pages of its own in, by a look at one."""
    places = [(s, e) for s, e, access, _ in mappings() if "w" in access]

    def pages():  # which page of the machine is where; only root is told
        with open("/proc/self/pagemap", "rb", 0) as table:
            for first, last in places:
                entries = memoryview(os.pread(table.fileno(), (last - first) // 512, first // 512))
                yield from zip(range(first, last, PAGE), entries.cast("Q"), strict=True)

    before, reader = dict(pages()), os.pipe()
    if fork() == 0:
        interpreter._execute("print(1)", "<program>", echo=False)
        new = [place for place, page in pages() if page != before[place]]
        os.write(reader[1], repr(new).encode()[:60000])
        os._exit(0)
    os.wait()
    ranges = []
    for place in eval(os.read(reader[0], 65536)):
        if ranges and ranges[-1][1] == place:
            ranges[-1][1] = place + PAGE
        else:
            ranges.append([place, place + PAGE])
    return ranges


def tree(root):
    """CPU seconds and page faults of a process, its descendants and those they waited for."""
    total, unseen = [0, 0], [root]
    while unseen:
        pid = unseen.pop()
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = [int(f) for f in file.read().rpartition(")")[2].split()[1:15]]
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as file:
                    unseen += file.read().split()
        except OSError:
            continue
        total[0] += sum(fields[10:14])
        total[1] += fields[6] + fields[7]
    return total[0] / os.sysconf("SC_CLK_TCK"), total[1]


def row(options):
    """Run `COUNT` programs whenever a line comes in, and write what they used."""
    out = os.fdopen(os.dup(1), "w")
    if options not in ("library", "http"):
        report(prepare(options.split()), used, out)
        return
    import asyncio

    from sandbox import ours
    from sandbox_load import SNIPPETS, load, load_library

    from ctpo.sandbox import Sandbox

    snippets = SNIPPETS["print"]
    with Sandbox() if options == "library" else ours() as started:
        if options == "library":
            pid, work = os.getpid(), lambda: load_library(started, snippets, 64, OF_ALL, 60)
        else:
            pid, work = started[1], lambda: load(started[0], snippets, 64, OF_ALL, seconds=60)
        report(lambda: asyncio.run(work()), lambda: tree(pid), out, OF_ALL)


def report(run, now, out, count=COUNT):
    run()
    print("ready", file=out, flush=True)
    while os.read(0, 1):
        before = now()
        run()
        figures = [(b - a) / count for a, b in zip(before, now(), strict=True)]
        print(*figures, file=out, flush=True)


def used():
    """CPU seconds and page faults of this process and the children it waited for."""
    usages = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages), sum(u.ru_minflt for u in usages)


def main():
    import argparse
    import random
    import statistics

    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=14)
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args()
    print(f"{COUNT} programs a turn, {options.rounds} turns, {options.starts} starts; ", end="")
    print(f"load {os.getloadavg()[0]:.1f} before\n", flush=True)
    best = [[] for _ in PARTS + TRIES]
    for _ in range(options.starts):
        processes = [start(*row) for row in PARTS + TRIES]
        turns = [[] for _ in processes]
        for _ in range(options.rounds):
            for number in random.sample(range(len(processes)), len(processes)):
                turns[number].append(turn(processes[number]))
        for figures, process, mine in zip(best, processes, turns, strict=True):
            process.stdin.close()
            process.wait()
            figures.append(min(mine))
    means = [[statistics.mean(column) for column in zip(*f, strict=True)] for f in best]
    for number, (name, kind, *_) in enumerate(PARTS + TRIES):
        cpu, faults = means[number]
        line = f"{name:50}{cpu:6.2f} CPU-ms {faults:5.0f} faults"
        if number >= len(PARTS):
            line += f" {cpu / means[4 if 'jail' in kind else 3][0] - 1:+5.0%}"
        print(("\n" if number == len(PARTS) else "") + line)


def start(name, kind, flags="", setting=""):
    """The process of a row, ready for its turns."""
    import subprocess  # not above: what a row imports is in its memory

    from ctpo.sandbox.client.launcher import _ENVIRONMENT

    whole = kind in ("library", "http")
    environment = dict(os.environ) if whole else dict(_ENVIRONMENT)
    environment |= dict([setting.split("=", 1)] if setting else [])
    python = [sys.executable, *(flags or ("" if whole else "-s -P")).split()]
    process = subprocess.Popen(
        [*python, __file__, "--row", kind],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n", name
    return process


def turn(process):
    """CPU-ms and page faults of a program in one turn of a row."""
    process.stdin.write("\n")
    process.stdin.flush()
    cpu, faults = process.stdout.readline().split()
    return float(cpu) * 1e3, float(faults)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--row"]:
        row(sys.argv[2])
    else:
        main()
