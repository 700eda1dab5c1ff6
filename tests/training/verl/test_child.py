"""A child process: its exit code, its log, our signals, and why it failed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ctpo.training.verl.child import reason, run_child
from tests.waiting import PATIENCE, eventually


def python(code):
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("code", "expected"),
    [("", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 128 + 9)],
)
def test_its_exit_code_is_returned(code, expected, tmp_path):
    assert run_child(python(code), tmp_path / "log", lambda: None) == expected


def test_what_it_prints_is_appended_to_the_log_and_variables_reach_it(tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    code = "import os, sys; print(os.environ['MINE']); print('wrong', file=sys.stderr)"
    run_child(python(code), log, lambda: None, {"MINE": "mine"})
    assert sorted(log.read_text().split()) == ["before", "mine", "wrong"]


def test_something_is_done_meanwhile(tmp_path):
    """The child goes on until it has been seen to."""
    seen = tmp_path / "seen"
    code = f"import os, time\nwhile not os.path.exists({str(seen)!r}): time.sleep(0.05)"
    assert run_child(python(code), tmp_path / "log", seen.touch) == 0


def test_an_error_meanwhile_ends_it(tmp_path):
    number = tmp_path / "pid"
    code = f"import os, time; open({str(number)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"

    def fail():
        if number.is_file() and number.read_text():
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        run_child(python(code), tmp_path / "log", fail)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text()), 0)


# Starts a child that says what signal it got, tells its number, and says how the child ended.
PARENT = """
import signal
import sys
from pathlib import Path
from ctpo.training.verl.child import run_child
place = Path(sys.argv[1])
# Whoever starts the tests in the background, or under nohup, has some ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
for name in sys.argv[2:]:
    signal.signal(signal.Signals[name], signal.SIG_IGN)
CHILD = '''
import os, signal, sys, time
def heard(number, frame):
    print("heard", number, flush=True)
    sys.exit(3)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, heard)
open(sys.argv[1] + ".part", "w").write(str(os.getpid()))
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(1000)
'''
command = [sys.executable, "-c", CHILD, str(place / "pid")]
try:
    print("ended", run_child(command, place / "log", lambda: None), flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def parent(place, *ignored):
    started = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(place), *ignored], stdout=subprocess.PIPE, text=True
    )
    eventually((place / "pid").is_file)
    return started, int((place / "pid").read_text())


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "ended 3"), (signal.SIGHUP, "ended 3")],
)
def test_our_signals_go_on_to_it_and_it_is_waited_for(number, said, tmp_path):
    started, _ = parent(tmp_path)
    started.send_signal(number)
    assert started.communicate(timeout=PATIENCE)[0].split("\n")[0] == said
    assert (tmp_path / "log").read_text() == f"heard {number.value}\n"


def test_a_hang_up_that_is_ignored_does_not_end_it(tmp_path):
    started, _ = parent(tmp_path, "SIGHUP")
    started.send_signal(signal.SIGHUP)
    started.send_signal(signal.SIGTERM)
    assert started.communicate(timeout=PATIENCE)[0] == "ended 3\n"
    assert (tmp_path / "log").read_text() == f"heard {signal.SIGTERM.value}\n"


def test_a_signal_that_comes_before_it_starts_goes_on_to_it(tmp_path, monkeypatch):
    begin = subprocess.Popen

    def interrupted(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return begin(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    code = run_child(
        [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", lambda: None
    )
    assert code == 128 + signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death")
def test_it_does_not_outlive_us_when_we_are_killed(tmp_path):
    started, child = parent(tmp_path)
    started.kill()
    started.wait()
    said = f"heard {signal.SIGTERM.value}\n"
    eventually((tmp_path / "log").read_text, lambda log: log == said)

    def state():
        try:
            return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return "gone"

    # Some containers have no process that waits for orphans.
    eventually(state, lambda state: state in ("gone", "Z", "X"))


RAY = """\
\x1b[36m(TaskRunnerV1 pid=11128)\x1b[0m ValueError: an earlier one, which somebody caught
\x1b[36m(TaskRunnerV1 pid=11128)\x1b[0m going on
Error executing job with overrides: []
Traceback (most recent call last):
  File "/verl/trainer/main_ppo.py", line 179, in main
    run_ppo(config, task_runner_class=TaskRunnerV1)
ray.exceptions.RayTaskError(ValueError): \x1b[36mray::TaskRunnerV1.run()\x1b[39m (pid=11128)
  File "/verl/trainer/ppo/ray_trainer.py", line 10, in create_resource_pool
    raise ValueError(
ValueError: Total available GPUs 0 is less than total desired GPUs 8

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
"""


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (RAY, "ValueError: Total available GPUs 0 is less than total desired GPUs 8"),
        ("(Worker pid=3) torch.OutOfMemoryError: CUDA out of memory\n", "torch.OutOfMemoryError: "),
        (
            "Traceback (most recent call last):\nAssertionError: a\nb\n\nafterwards\n",
            "AssertionError: a\nb",
        ),
        ("starting\nkilled by the scheduler\n\n", "killed by the scheduler"),
        ("", "it printed nothing"),
    ],
)
def test_the_reason_is_the_last_error_of_the_log(log, expected):
    assert reason(log).startswith(expected)
    assert "File" not in reason(log)
