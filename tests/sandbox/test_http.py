import base64
import contextlib
import http.client
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.somebody import SOMEBODY, become_somebody
from tests.somebody import place_of_somebody as their_place
from tests.waiting import PATIENCE, eventually

from .http_server import Server, quiet_port, serving


@pytest.fixture
def place_of_somebody():
    with their_place() as path:
        yield path


@pytest.fixture(scope="module", params=[1, 2], ids=["one-frontend", "two-frontends"])
def server(request):
    with serving("--workers", "2", "--frontends", str(request.param)) as started:
        yield started


@pytest.mark.parametrize(
    ("code", "status", "run_status", "return_code"),
    [
        ("print(1)", "Success", "Finished", 0),
        ("1 / 0", "Failed", "Finished", 1),
        ("raise SystemExit(3)", "Failed", "Finished", 3),
        ("while True: pass", "Failed", "TimeLimitExceeded", None),
        ("x = bytearray(1 << 31)", "Failed", "Finished", 137),
        ("print('x' * 10**6)", "Failed", "Finished", 153),
    ],
)
def test_each_end_is_told_as_sandboxfusion_tells_it(
    server: Server, code, status, run_status, return_code
):
    answer = server.run(code, run_timeout=0.5 if run_status == "TimeLimitExceeded" else 60)
    assert answer["status"] == status and answer["compile_result"] is None
    result = answer["run_result"]
    assert (result["status"], result["return_code"]) == (run_status, return_code)
    assert set(result) == {
        "status",
        "execution_time",
        "cpu_time",
        "return_code",
        "stdout",
        "stderr",
    }


def test_input_and_files_go_in_and_out(server):
    answer = server.run(
        "import sys\nopen('b', 'wb').write(open('d/a', 'rb').read() * 2)\nprint(input())",
        stdin="é\n",
        files={"d/a": base64.b64encode(b"\xff").decode(), "none": None},
        fetch_files=["b", "missing"],
        memory_limit_MB=1024,
        compile_timeout=1,
    )
    assert answer["run_result"]["stdout"] == "é\n"
    assert answer["files"] == {"b": base64.b64encode(b"\xff\xff").decode()}


@pytest.mark.parametrize(
    ("limit", "needed_mb", "return_code"),
    [
        (100, 50, 0),
        (100, 150, 137),
        (1, 50, 137),
        # As much as the server allows, which is 512 MiB, and no more.
        (-1, 150, 0),
        (4096, 150, 0),
        (4096, 700, 137),
    ],
)
def test_a_request_can_lower_the_memory_of_its_program(server, limit, needed_mb, return_code):
    code = f"x = bytearray({needed_mb} << 20); print(len(x) >> 20)"
    answer = server.run(code, memory_limit_MB=limit)
    assert answer["run_result"]["return_code"] == return_code
    assert answer["run_result"]["stdout"] == ("" if return_code else f"{needed_mb}\n")
    assert ("more memory" in answer["message"]) == (return_code == 137)
    # The limit ends with the run.
    assert server.run("x = bytearray(200 << 20)")["status"] == "Success"


def test_bytes_that_are_no_text_are_replaced(server):
    answer = server.run("import os; os.write(1, b'a\\xffb')")
    assert answer["run_result"]["stdout"] == "a\ufffdb"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"language": "python"}',
        b'{"code": 1, "language": "python"}',
        b'{"code": "1", "language": "cobol"}',
        b'{"code": "1", "run_timeout": 0}',
        b'{"code": "1", "run_timeout": 1e9}',
        b'{"code": "1", "run_timeout": NaN}',
        b'{"code": "1", "memory_limit_MB": 0}',
        b'{"code": "1", "memory_limit_MB": -2}',
        b'{"code": "1", "memory_limit_MB": 1.5}',
        b'{"code": "1", "memory_limit_MB": "much"}',
        b'{"code": "1", "files": {"../x": ""}}',
        b'{"code": "1", "files": {"x": "!"}}',
        b'{"code": "1", "files": {"x": "", "x/y": ""}}',
        b'{"code": "1", "fetch_files": ["/etc/passwd"]}',
        json.dumps({"code": "1", "fetch_files": [f"{i:019}" for i in range(7000)]}).encode(),
        json.dumps({"code": "1", "fetch_files": [str(i) for i in range(40_000)]}).encode(),
        json.dumps({"code": "1", "fetch_files": ["a"] * 12_000}).encode(),
        b'{"code": "1", "fetch_files": ["a", "./a"]}',
        json.dumps({"code": "1", "fetch_files": [1] * 100_000}).encode(),
        json.dumps({"code": "1", "files": {str(i): "" for i in range(40_000)}}).encode(),
        b'{"code": "1", "files": {"a/": ""}}',
        b'{"code": "1", "files": {"a": "", "./a": ""}}',
        json.dumps({"code": "1", "files": {"\u00e9" * 600: ""}}).encode(),
        b'{"code": "\\ud800"}',
        b'{"code": "1", "stdin": {}}',
        b"[" * 100_000,
    ],
)
def test_a_request_that_makes_no_sense_gets_422(server, body):
    status, answer = server.ask("POST", "/run_code", body)
    assert status == 422 and json.loads(answer)["detail"] and len(answer) < 10_000
    assert server.run("print(1)")["run_result"]["stdout"] == "1\n"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        st.binary(max_size=300),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=9),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
        st.dictionaries(
            st.sampled_from(
                [
                    "code",
                    "stdin",
                    "files",
                    "fetch_files",
                    "run_timeout",
                    "memory_limit_MB",
                    "language",
                ]
            ),
            st.none() | st.text(max_size=9) | st.floats() | st.lists(st.text(max_size=5)),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_no_body_breaks_the_server(server, body):
    status, _ = server.ask("POST", "/run_code", body)
    assert status in (200, 422)


def test_health_and_metrics_tell(server):
    server.run("print(1)")
    server.run("1 / 0")
    status, answer = server.ask("GET", "/health")
    assert status == 200 and json.loads(answer)["status"] == "ok"
    assert server.ask("GET", "/metrics")[0] == 200
    values = metrics(server)
    assert float(values['ctpo_sandbox_executions_total{status="success"}']) >= 1
    assert float(values['ctpo_sandbox_executions_total{status="error"}']) >= 1
    assert values["ctpo_sandbox_workers"] == "2"
    at_work_and_waiting(server, 0, 0)
    assert server.ask("GET", "/nowhere")[0] == 404 and server.ask("GET", "/run_code")[0] == 405


def metrics(server, headers=None):
    text = server.ask("GET", "/metrics", headers=headers)[1].decode()
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")


def at_work_and_waiting(server, at_work, waiting, headers=None):
    """Wait until so many programs are at work and so many wait for a worker."""

    def look():
        values = metrics(server, headers)
        return int(values["ctpo_sandbox_in_flight"]), int(values["ctpo_sandbox_waiting"])

    eventually(look, lambda seen: seen == (at_work, waiting), "programs at work and waiting")


@contextlib.contextmanager
def left_open(server, count, headers=()):
    """Requests for programs that do not end by themselves; hangs up at the end."""
    body = json.dumps({"code": "import time; time.sleep(999)", "run_timeout": 120}).encode()
    lines = ["POST /run_code HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers]
    with contextlib.ExitStack() as clients:
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", server.port))
            clients.enter_context(client).sendall("\r\n".join([*lines, "", ""]).encode() + body)
        yield


def test_health_is_cheap_however_often_it_is_asked_for(server):
    def programs():
        _, text = server.ask("GET", "/metrics")
        ended = [line for line in text.decode().splitlines() if "executions_total{" in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in ended)

    before = programs()
    began = time.monotonic()
    assert {server.ask("GET", "/health")[0] for _ in range(100)} == {200}
    # Two front ends each keep an answer for two seconds.
    assert programs() - before <= 2 * (2 + (time.monotonic() - began) / 2)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_token_need_not_be_ascii(encoding):
    with serving("--workers", "1", token="schlüssel") as server:
        right = "Bearer schlüssel".encode(encoding).decode("latin-1")
        for given, status in ((right, 200), ("Bearer schlussel", 401), ("", 401)):
            assert server.ask("GET", "/metrics", headers={"authorization": given})[0] == status


def test_other_machines_are_not_served_by_accident():
    command = [sys.executable, "-P", "-c", "from ctpo.cli import main; main()", "sandbox", "serve"]
    environment = {k: v for k, v in os.environ.items() if k != "CTPO_SANDBOX_TOKEN"}
    options = ["--host", "0.0.0.0", "--port", "0"]  # noqa: S104
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment)
    assert done.returncode and "CTPO_SANDBOX_TOKEN" in done.stderr and "--allow-open" in done.stderr


def test_who_hangs_up_ends_the_run(server):
    at_work_and_waiting(server, 0, 0)
    with left_open(server, 4):
        at_work_and_waiting(server, 2, 2)
    at_work_and_waiting(server, 0, 0)
    assert server.run("print(1)", run_timeout=60)["run_result"]["stdout"] == "1\n"


def test_many_requests_at_once_get_their_own_answers(server):
    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(lambda i: server.run(f"print({i})"), range(200)))
    assert [a["run_result"]["stdout"] for a in answers] == [f"{i}\n" for i in range(200)]


def test_a_token_is_asked_for_and_limits_hold():
    with serving(
        "--workers", "1", "--max-requests", "3", "--max-body-mb", "1", token="open sesame"
    ) as server:
        for path in ("/run_code", "/metrics"):
            method = "POST" if path == "/run_code" else "GET"
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "ü"}):
                assert server.ask(method, path, headers=headers)[0] == 401
        assert server.ask("GET", "/health")[0] == 200
        key = {"authorization": "Bearer open sesame"}
        assert server.ask("POST", "/run_code", b'{"code": "1"}', key)[0] == 200
        # A body that is said to be too long is not waited for; of one that does not say, the byte
        # beyond the limit is the last that is sent, so that the server reads all there is.
        said = {**key, "content-length": str((1 << 20) + 1)}
        assert server.ask("POST", "/run_code", headers=said)[0] == 413
        head = "POST /run_code HTTP/1.1\r\nhost: x\r\nauthorization: Bearer open sesame\r\n"
        chunk = f"transfer-encoding: chunked\r\n\r\n{(1 << 20) + 1:x}\r\n" + "x" * ((1 << 20) + 1)
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
            client.sendall((head + chunk).encode())
            assert client.recv(100).startswith(b"HTTP/1.1 413")
        with left_open(server, 2, ["authorization: Bearer open sesame"]):
            at_work_and_waiting(server, 1, 1, key)
            assert server.ask("POST", "/run_code", b"{", key)[0] == 503
            # Who holds nothing yet is let in, and does not wait for those who hold all.
            other = {**key, "x-ctpo-client": "other"}
            assert server.ask("POST", "/run_code", b'{"code": "1"}', other)[0] == 200
        at_work_and_waiting(server, 0, 0, key)
        assert server.ask("POST", "/run_code", b'{"code": "1"}', key)[0] == 200


@pytest.mark.parametrize("name", ["user-agent", "x-ctpo-client"])
def test_a_crowd_at_the_same_address_does_not_keep_another_client_waiting(server, name):
    body = json.dumps({"code": "print(1)"}).encode()
    with left_open(server, 64):
        at_work_and_waiting(server, 2, 62)
        for _ in range(20):
            # None of the crowd's programs ends by itself: only a place of its own gives answers.
            assert server.ask("POST", "/run_code", body, {name: "another"})[0] == 200
    at_work_and_waiting(server, 0, 0)


@pytest.fixture(scope="module")
def impatient():
    with serving(
        "--workers", "1", "--client-timeout", "1", "--max-body-mb", "1", "--max-held-mb", "2"
    ) as started:
        yield started


HEAD = b"POST /run_code HTTP/1.1\r\nhost: x\r\n"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\r\n",
        b"PO",
        HEAD,
        HEAD + b"content-length: 100\r\n\r\n",
        HEAD + b"content-length: 100\r\n\r\n{",
        HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{",
        b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\nGET",
    ],
)
def test_who_does_not_come_to_the_point_is_hung_up_on(impatient, said):
    with socket.create_connection(("127.0.0.1", impatient.port), PATIENCE) as client:
        client.sendall(said)
        with contextlib.suppress(ConnectionResetError):
            while client.recv(4096):
                pass


def test_a_slow_program_is_not_a_slow_client(impatient):
    assert impatient.run("import time; time.sleep(3)", run_timeout=9)["status"] == "Success"


def test_who_does_not_read_an_answer_is_hung_up_on(impatient):
    code = "open('a', 'wb').write(bytes(8 << 20))"
    body = json.dumps({"code": code, "fetch_files": ["a"]}).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", impatient.port))
        client.sendall(HEAD + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        poll = select.poll()
        poll.register(client, select.POLLHUP | select.POLLERR)
        assert poll.poll(PATIENCE * 1000)


def test_bodies_that_wait_are_bounded_in_bytes_and_each_client_has_a_share(impatient):
    code = "import time; time.sleep(999)"
    large = json.dumps({"code": code, "run_timeout": 99, "stdin": "x" * 900_000}).encode()
    small = b'{"code": "print(1)"}'
    with contextlib.ExitStack() as clients:
        client = socket.create_connection(("127.0.0.1", impatient.port))
        clients.enter_context(client)
        client.sendall(HEAD + f"content-length: {len(large)}\r\n\r\n".encode() + large)
        at_work_and_waiting(impatient, 1, 0)
        status, _ = impatient.ask("POST", "/run_code", large)
        assert status == 503
        other = {"x-ctpo-client": "other"}
        assert impatient.ask("POST", "/run_code", small, other)[0] == 200
    at_work_and_waiting(impatient, 0, 0)


def few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def test_half_sent_requests_leave_the_operator_a_connection():
    with (
        serving("--workers", "1", "--client-timeout", "100", first=few_descriptors) as server,
        contextlib.ExitStack() as clients,
    ):
        for _ in range(400):
            client = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
            clients.enter_context(client).sendall(HEAD)
        assert server.ask("GET", "/health")[0] == 200
        assert server.run("print(1)")["run_result"]["stdout"] == "1\n"


@pytest.mark.parametrize("frontends", ["1", "2"])
def test_the_address_may_be_of_ipv6(frontends):
    with serving("--workers", "1", "--host", "::1", "--frontends", frontends) as server:
        connection = http.client.HTTPConnection("::1", server.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("POST", "/run_code", b'{"code": "print(1)"}')
            assert b'"1\\n"' in connection.getresponse().read()


def test_a_server_told_to_stop_finishes_what_was_begun(processes):
    with serving("--workers", "1") as server:
        answers = []
        code = "import time; time.sleep(2); print('done')"
        thread = threading.Thread(target=lambda: answers.append(server.run(code)))
        thread.start()
        eventually(lambda: int(metrics(server)["ctpo_sandbox_in_flight"]) or answers)
        tree = processes.tree(server.process.pid)
        assert server.stop() == 0
        thread.join()
        assert answers[0]["run_result"]["stdout"] == "done\n"
        processes.wait_until_gone(tree)


def test_a_killed_front_end_is_replaced_and_the_pool_goes_on(processes):
    with serving("--workers", "2", "--frontends", "2") as server:

        def is_front(pid):
            try:
                return b"frontend" in Path(f"/proc/{pid}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                return False

        def fronts():
            return set(filter(is_front, processes.children(server.process.pid)))

        assert server.run("print(0)")["status"] == "Success"
        for pid in (killed := eventually(fronts, lambda found: len(found) == 2)):
            os.kill(pid, signal.SIGKILL)
        eventually(fronts, lambda found: len(found) == 2 and not found & killed)

        def answers():
            try:
                return server.run("print(1)")["run_result"]["stdout"]
            except (OSError, http.client.HTTPException):  # one that was killed had it accepted
                return None

        assert eventually(answers) == "1\n"


@pytest.mark.parametrize(
    ("frontends", "first"),
    [(1, None), (2, None), (2, become_somebody)],
    ids=["one-frontend", "two-frontends", "somebody"],
)
def test_a_server_killed_under_load_leaves_nothing_and_can_be_started_again(
    processes, frontends, first, tmp_path, request
):
    place = request.getfixturevalue("place_of_somebody") if first else tmp_path
    start = partial(serving, first=first, TMPDIR=str(place))
    options = ("--workers", "2", "--frontends", str(frontends), "--port", str(quiet_port()))
    mounts = Path("/proc/self/mounts").read_text().count("ctpo")
    wrong, ends = [], []

    def call(server, number):
        i = number * 100_000
        try:
            while True:
                i += 1
                code = f"open('f', 'w').write('{i}'); print(open('f').read())"
                answer = server.run(code, run_timeout=60)
                if answer["status"] == "SandboxError":  # from a front end, of its last moment
                    ends.append(answer)
                    return
                if answer["run_result"]["stdout"] != f"{i}\n":
                    wrong.append(answer)
        except (OSError, http.client.HTTPException) as error:
            ends.append(error)

    with start(*options) as server:
        assert server.run("print(0)")["status"] == "Success"
        threads = [threading.Thread(target=call, args=(server, n)) for n in range(6)]
        for thread in threads:
            thread.start()
        # Its front ends, its server process, the fork server's two and the children held ready.
        tree = processes.settles(server.process.pid, lambda tree: len(tree) >= 1 + 1 + 2 + 2)
        eventually(lambda: int(metrics(server)["ctpo_sandbox_in_flight"]))
        server.process.kill()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a caller hangs"
        assert not wrong and len(ends) == 6
        processes.wait_until_gone(tree)
    assert not list(place.iterdir())
    assert Path("/proc/self/mounts").read_text().count("ctpo") == mounts
    with start(*options) as server:
        assert server.run("print(1)")["run_result"]["stdout"] == "1\n"
        wanted = os.geteuid() if first is None else SOMEBODY
        assert Path(f"/proc/{server.process.pid}").stat().st_uid == wanted


def test_the_directory_it_is_started_in_lends_a_server_no_module(tmp_path, monkeypatch):
    (tmp_path / "http.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    with serving("--workers", "1", "--frontends", "2") as server:
        assert server.run("print(1)")["run_result"]["stdout"] == "1\n"


def test_a_socket_file_can_be_served(tmp_path):
    path = tmp_path / "socket"
    command = [sys.executable, "-c", "from ctpo.cli import main; main()", "sandbox", "serve"]
    with subprocess.Popen(
        [*command, "--socket", str(path), "--workers", "1", "--preload", ""],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while "listening at" not in (line := process.stdout.readline()):
            assert line
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            client.settimeout(PATIENCE)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert not path.exists()


def test_sandboxfusions_own_client_works(server):
    fusion = pytest.importorskip("sandbox_fusion")
    request = fusion.RunCodeRequest(code="print(input())", language="python", stdin="in")
    answer = fusion.run_code(request, endpoint=server.url, max_attempts=1)
    assert answer.status == fusion.RunStatus.Success and answer.run_result.stdout == "in\n"
    summary = fusion.SummaryMapping(RunTimeout="time")
    slow = fusion.RunCodeRequest(code="while True: pass", language="python", run_timeout=0.3)
    answer = fusion.run_code(slow, endpoint=server.url, max_attempts=1)
    assert fusion.summary_run_code_result(answer, summary) == "time"
    failed = fusion.RunCodeRequest(code="x = bytearray(1 << 31)", language="python")
    answer = fusion.run_code(failed, endpoint=server.url, max_attempts=1)
    assert fusion.summary_run_code_result(answer, summary) == fusion.RunStatus.Failed


def test_verls_reward_code_works(server):
    fusion = pytest.importorskip("verl.utils.reward_score.sandbox_fusion")
    cases = json.dumps({"inputs": ["2\n", "3\n"], "outputs": ["4\n", "9\n"]})
    right = "```python\nprint(int(input()) ** 2)\n```"
    score, _ = fusion.compute_score(server.url + "/run_code", None, 1024, right, cases)
    assert score == 1.0
    half = "```python\nprint(4)\n```"
    score, _ = fusion.compute_score(server.url + "/run_code", None, 1024, half, cases, True)
    assert score == 0.5
