import pytest

from maskedclip_composer.__main__ import main
from maskedclip_composer.errors import UserError
from maskedclip_composer.use.options import check_writable


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    for path in (tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "new" / "deep" / "c.csv"):
        check_writable("--out", path)
    check_writable("--out", tmp_path, folder=True)
    check_writable("--out", tmp_path / "pictures", folder=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "old"


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "a.csv").touch()
    for path, message in [
        (tmp_path, "is a folder"),
        (tmp_path / "a.csv" / "b.csv", "cannot be written"),
        ("/proc/x.csv", "cannot be written"),
    ]:
        with pytest.raises(UserError, match=f"--out {path} {message}"):
            check_writable("--out", type(tmp_path)(path))


@pytest.mark.parametrize(
    "command",
    [
        ["zero-shot", "absent", "--model", "absent", "--classes", "a", "b", "--out", "/proc/x.csv"],
        ["visualize", "absent", "--model", "absent", "--out", "/proc/x"],
        ["export", "absent", "--to", "hf", "--out", "/proc/x"],
    ],
)
def test_commands_look_at_the_place_first(command, capsys):
    assert main(command) == 2
    assert f"--out {command[-1]} cannot be written" in capsys.readouterr().err
