"""What root cannot try: a user with few rights, whose directories and locks may be another's."""

import os
import re
import shutil
import signal
import sys

import pytest

from ctpo.cli import main
from ctpo.disk import locked
from ctpo.training.run_directory import RunDirectory
from ctpo.training.tiny.warm_start import fingerprint
from tests.somebody import SOMEBODY, become_somebody, give_to_somebody, place_of_somebody
from tests.waiting import eventually

from .harness import SMALL, child, content, counted, train

pytestmark = pytest.mark.faults


@pytest.fixture
def theirs():
    with place_of_somebody() as path:
        yield path


@pytest.fixture
def roots(theirs, cache, whole, begun):
    """A directory of root's that everybody may read, with a cache, a whole run and a begun one."""
    path = theirs.parent / "roots"
    path.mkdir()
    for name, source in (("cache", cache), ("whole", whole), ("begun", begun)):
        shutil.copytree(source, path / name).chmod(0o755)
    return path


def as_somebody(work):
    def changed():
        become_somebody()
        work()

    return child(changed)


def goes_on(path, cache, whole):
    ended = as_somebody(lambda: train(path, cache))
    assert ended.code == 0, ended.said
    assert content(path) == content(whole)
    assert not list(path.rglob("*.unfinished"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_killed_without_rights_it_ends_with_the_same_bits(theirs, roots, whole, events, share):
    """From a warm start that is another user's."""

    def work():
        counted(theirs, int(share * events))
        train(theirs / "run", roots / "cache")

    assert as_somebody(work).code == -signal.SIGKILL
    goes_on(theirs / "run", roots / "cache", whole)


def as_ctpo(*arguments, code, **variables):
    """What the command says, given as somebody."""

    def work():
        os.environ.update(variables, COLUMNS="300")
        sys.stdout, sys.argv = sys.stderr, ["ctpo", *map(str, arguments)]
        main()

    ended = as_somebody(work)
    assert ended.code == code, ended.said
    return ended.said


def ctpo(*arguments, **variables):
    """The one sentence that is said of what fails, and all that was said."""
    said = as_ctpo(*arguments, code=1, **variables)
    assert "Traceback" not in said
    sentences = [line for line in said.splitlines() if line.startswith("error ")]
    assert len(sentences) == 1, said
    return sentences[0], said


NEW = ("train", "tiny", *(part for change in SMALL for part in ("--set", change)), "--output")
# The rights of root's directory, what of it they lack, and the command.
PLACES = {
    "new run": (0o755, "", (*NEW, "{roots}/run")),
    "run": (0o755, "/begun", ("train", "--resume", "{roots}/begun")),
    "hidden run": (0o700, "", ("train", "--resume", "{roots}/begun")),
    "cache": (0o755, "", (*NEW, "{theirs}/run")),
    "hidden cache": (0o700, "", (*NEW, "{theirs}/run")),
    "new evaluation": (0o755, "", ("eval", "{roots}/whole", "--output", "{roots}/new")),
    "evaluation": (0o755, "/empty", ("eval", "{roots}/whole", "--output", "{roots}/empty")),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_directory_without_the_right_to_write_is_named_with_its_owner(theirs, roots, place):
    rights, named, arguments = PLACES[place]
    (roots / "empty").mkdir()
    roots.chmod(rights)
    before = sorted(roots.rglob("*"))
    said, more = ctpo(
        *(each.format(roots=roots, theirs=theirs) for each in arguments), XDG_CACHE_HOME=str(roots)
    )
    lacks = f"user {SOMEBODY}, who runs this, may not use {roots}{named}, which is root's (d"
    assert "Permission denied" in said and lacks in said
    assert sorted(roots.rglob("*")) == before
    begins = "cache" in place
    assert ("XDG_CACHE_HOME names another place" in said) == begins
    assert bool(list(theirs.iterdir())) == begins
    assert ("go on with: ctpo train --resume" in more) == (begins or place == "run")


def test_without_a_home_it_is_said_where_the_cache_can_go(theirs):
    said, _ = ctpo(*NEW, theirs / "run")
    assert "no home directory (XDG_CACHE_HOME names another place for warm starts)" in said


def test_a_file_of_a_model_without_the_right_to_read_is_named(theirs, roots):
    (weights := roots / "whole" / "model" / "model.safetensors").chmod(0o600)
    said, _ = ctpo("eval", weights.parent, "--output", theirs / "evaluation")
    assert f"this user may not read {weights}" in said


def test_a_socket_of_the_sandboxs_server_that_cannot_be_made_is_named(theirs, roots):
    said, _ = ctpo("sandbox", "serve", "--socket", roots / "socket")
    assert f"{roots}/socket: Permission denied" in said and f"may not use {roots}, which" in said


def test_a_lock_of_another_user_keeps_out_while_it_is_held_and_no_longer(
    theirs, roots, begun, whole
):
    shutil.copytree(begun, theirs / "run")
    (theirs / "run" / ".lock").unlink()
    evaluation = ("eval", str(roots / "whole"), "--output", str(theirs / "evaluation"))
    for path, command in (
        (theirs / "run", ("train", "--resume", str(theirs / "run"))),
        (theirs / "evaluation", evaluation),
    ):
        give_to_somebody(path)
        with locked(path):
            assert f"another process is at work in {path}" in ctpo(*command)[0]
        assert (path / ".lock").stat().st_uid == 0
    goes_on(theirs / "run", roots / "cache", whole)
    as_ctpo(*evaluation, "--problems", "8", "--samples", "1", code=0)


def test_a_warm_start_that_another_user_is_making_is_waited_for_and_used(theirs, cache, whole):
    """In a cache that is shared as /tmp is, where a file is its maker's only."""
    shared = theirs.parent / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    name = fingerprint(RunDirectory.open(whole).recipe)

    def root():
        lock = f".{name}.lock"
        with locked(shared, lock):
            os.write(begun, b"x")
            waits = rf"-> FLOCK .*:{(shared / lock).stat().st_ino} "
            eventually(lambda: re.search(waits, open("/proc/locks").read()))
            shutil.copytree(cache / name, shared / name)

    seen, begun = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            root()
        finally:
            os._exit(0)
    os.read(seen, 1)
    goes_on(theirs / "run", shared, whole)
    os.waitpid(pid, 0)
    assert (shared / name).stat().st_uid == 0
