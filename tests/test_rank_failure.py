"""A rank fails: what the others do, what each says, and what the launcher then shows and returns."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from maskedclip_composer.errors import UserError
from maskedclip_composer.rank_failure import stop
from tests import failing_ranks
from tests.failing_ranks import bad_photograph, killed, on_the_last_rank, programming_error
from tests.ranks import run_ranks

GRACE = 30.0


def logs(folder: Path, ranks: int = 2) -> list[str]:
    return [(folder / f"rank{rank}.log").read_text() for rank in range(ranks)]


def test_a_message_for_the_user_ends_all_and_is_said_by_the_rank_that_has_it(tmp_path):
    statuses = run_ranks(partial(on_the_last_rank, bad_photograph), 2, tmp_path, grace=GRACE)
    assert statuses == [2, 2]
    first, second = logs(tmp_path)
    assert "train.py: rank 1 has failed; see below for its message." in first
    assert "eye7" not in first  # the launcher shows what the second has written
    assert "train.py: error on rank 1 of 2\n  data.paired: eye7.jpg cannot be read.\n  Check it." in second
    assert "Traceback" not in first + second


def test_another_machine_is_told_the_message(tmp_path):
    assert run_ranks(partial(on_the_last_rank, bad_photograph), 2, tmp_path, nodes=2, grace=GRACE) == [2, 2]
    first, _ = logs(tmp_path)
    assert "train.py: rank 1 on " in first
    assert first.rstrip().endswith("has failed:\n\ndata.paired: eye7.jpg cannot be read.\nCheck it.")


def test_other_machines_are_told_what_ended_the_first_rank(tmp_path):
    """With it goes the store that the others look into."""
    assert run_ranks(failing_ranks.on_the_first, 2, tmp_path, nodes=2, grace=GRACE) == [2, 2]
    assert "train.py: rank 0 on " in logs(tmp_path)[1]
    assert "eye7.jpg" in logs(tmp_path)[1]


def test_another_machine_is_told_the_traceback(tmp_path):
    assert run_ranks(partial(on_the_last_rank, programming_error), 2, tmp_path, nodes=2, grace=GRACE) == [1, 1]
    for log in logs(tmp_path):
        assert "in programming_error" in log
        assert "RuntimeError: boom" in log
        assert "gloo" not in log


def test_a_killed_rank_is_named(tmp_path):
    statuses = run_ranks(partial(on_the_last_rank, killed), 3, tmp_path, nodes=3, grace=GRACE)
    assert statuses == [1, 1, -9]
    for rank, log in enumerate(logs(tmp_path, 3)[:2]):
        assert f"error on rank {rank} of 3" in log
        assert "Rank 2 on " in log
        assert "ank 1 on " not in log


def test_what_all_ranks_say_is_said_once(tmp_path):
    assert run_ranks(failing_ranks.on_all, 2, tmp_path, grace=GRACE) == [2, -signal.SIGTERM]
    first, second = logs(tmp_path)
    assert "eye7.jpg" in first
    assert not second


def test_a_rank_that_does_not_wait_for_the_others_is_ended_too(tmp_path):
    assert run_ranks(failing_ranks.while_the_first_computes, 2, tmp_path, nodes=2, grace=GRACE) == [2, 2]
    assert "eye7.jpg" in logs(tmp_path)[0]


def test_a_rank_fails_before_ranks_know_of_each_other(tmp_path):
    assert run_ranks(failing_ranks.before_the_group, 2, tmp_path)[1] == 2
    assert "train.py: error on rank 1 of 2" in logs(tmp_path)[1]


def test_a_node_that_never_comes(tmp_path):
    assert run_ranks(failing_ranks.alone, 2, tmp_path, nodes=2, grace=GRACE)[0] == 2
    first, _ = logs(tmp_path)
    assert "The 2 ranks did not all meet at 127.0.0.1:" in first
    assert "Start a launcher on every node" in first
    assert "Traceback" not in first


def test_composers_launcher_shows_the_message_and_returns_the_status(tmp_path):
    code = "import sys; sys.argv[0] = 'composer'; from composer.cli.launcher import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "-n", "2", "-m", "tests.failing_ranks", "bad_photograph"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=dict(os.environ))
    assert done.returncode == 2, done.stderr
    assert done.stdout.count("eye7.jpg") == 1
    assert "rank 1 has failed; see below" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_one_rank_says_it_as_always(capsys: pytest.CaptureFixture[str]):
    assert stop(UserError("seed=-1 is negative."), "train.py") == 2
    assert capsys.readouterr().err == "\ntrain.py: error\n  seed=-1 is negative.\n"
    with pytest.raises(KeyError):
        stop(KeyError("bug"), "train.py")
