"""Whatever a yaml and the command line hold, it is a config or one UserError that says where."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from maskedclip_composer.config import TrainConfig, to_yaml
from maskedclip_composer.config_file import load_config
from maskedclip_composer.errors import UserError

DEBUG = Path("yamls/debug.yaml").read_text()
ANY_FILE = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    size: int = 3
    ratio: float = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    name: str = "a"
    part: Part | None = None
    other: Part = dataclasses.field(default_factory=Part)
    trainer: dict[str, Any] = dataclasses.field(default_factory=dict)
    names: list[str] = dataclasses.field(default_factory=list)


def load(folder: Path, text: str | bytes, *overrides: str, cls: type = Whole):
    path = folder / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(cls, str(path), list(overrides))


# Pieces that mean something in yaml or to OmegaConf, so that random texts get past the scanner.
WORDS = "name part other trainer names size ratio null ??? 1 -1e9 .nan .inf 2020-99-99 0x true oc.env:HOME &a *a !!"
MARKS = "<< : [ ] { } , ' \" ~ # ${ \\ @ ` . \t \ufeff \x85 é \0"
OTHERS = ["\n", "\n  ", ": ", "- ", ", ", "? ", "| ", "> ", "!x ", "!!set ", "!!binary ", "---\n", "%YAML 1.2\n"]
PIECES = st.sampled_from([*WORDS.split(" "), *MARKS.split(" "), *OTHERS])
TEXTS = st.lists(PIECES, max_size=25).map("".join)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3))
DOCUMENTS = st.dictionaries(
    st.sampled_from(["name", "part", "other", "trainer", "names"]) | SCALARS,
    TREES | st.dictionaries(st.sampled_from(["size", "ratio"]), TREES),
    max_size=4,
).map(lambda tree: yaml.dump(tree, allow_unicode=True))


@ANY_FILE
@given(text=TEXTS | DOCUMENTS | st.binary(max_size=30))
@example(text="3")
@example(text="trainer: {null: 2}")
@example(text="trainer: {d: !!set {a, b}}")
@example(text="name: ${")
@example(text="trainer: " + "[" * 100_000)  # libyaml overflows the stack
@example(text="trainer: " + "{a: " * 100_000)
@example(text="trainer:\n  x0: &x0 [1]\n" + "".join(f"  x{i}: &x{i} [{f'*x{i - 1},' * 9}]\n" for i in range(1, 9)))
@example(text="trainer: &a {b: *a}")
def test_any_file_is_a_config_or_one_message_that_names_it(tmp_path, text):
    try:
        assert isinstance(load(tmp_path, text), Whole)
    except UserError as error:  # most are refused, some are not
        assert str(error).startswith(str(tmp_path / "config.yaml"))  # noqa: PT017


@ANY_FILE
@given(overrides=st.lists(TEXTS | st.builds("{}={}".format, TEXTS, TEXTS), max_size=3))
@example(overrides=["trainer.a=" + "[" * 100_000])
@example(overrides=["trainer" + ".a" * 10_000 + "=1"])
@example(overrides=["name=\ud800"])  # what Python makes of an argument that is not UTF-8
@example(overrides=["trainer.x=2020-99-99"])
@example(overrides=["[=name"])
def test_any_command_line_is_a_config_or_one_message(tmp_path, overrides):
    try:
        assert isinstance(load(tmp_path, "", *overrides), Whole)
    except UserError as error:  # most are refused, some are not
        assert "verride" in str(error) or str(error).startswith(str(tmp_path / "config.yaml"))  # noqa: PT017


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system ['touch owned']", "name: !!python/name:os.system ''"]
)
def test_tags_run_nothing(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="could not determine a constructor"):
        load(tmp_path, text)
    with pytest.raises(UserError, match="could not determine a constructor"):
        load(tmp_path, "", f"trainer.x={text}")
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:SECRET}",
        "a${oc.decode:${oc.env:SECRET}}",
        "${${names[0]}:SECRET}",
        "${oc.env:SECRET,x}",
        "${oc.env: SECRET }",
    ],
)
def test_no_value_comes_from_the_environment(tmp_path, monkeypatch, value):
    monkeypatch.setenv("SECRET", "hunter2")
    text = "names: [oc.env]\n" + yaml.safe_dump({"trainer": {"a": [value]}})
    for given_as in ((text,), ("names: [oc.env]", f"trainer.a=['{value}']")):
        with pytest.raises(UserError, match=r"trainer\.a\[0\] calls a resolver") as error:
            load(tmp_path, *given_as)
        assert "hunter2" not in str(error.value)


def test_a_key_refers_to_another(tmp_path):
    assert load(tmp_path, "name: x\nnames: ['${name}/y', '${names[0]}']").names == ["x/y", "x/y"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other: {ratio: .nan}", "other.ratio is not a number"),
        ("other: {size: 9223372036854775808}", "other.size does not fit"),
        ("trainer: {a: [1, .nan]}", r"trainer.a\[1\] is not a number"),
        (r"name: '\${name}'", "name holds the characters"),
        (r'name: "a\0b"', "name holds a NUL byte"),
    ],
)
def test_values_that_cannot_be_meant_are_refused_by_name(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, text)


def leaves(tree: dict, prefix: str = "") -> list[str]:
    inner = [
        leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key] for key, value in tree.items()
    ]
    return [name for names in inner for name in names]


PLAIN = st.text("abcXYZ059 _-./:#'\"{}[]|>&*!%@`,?\\é漢\n\t~\0", max_size=12)


@settings(ANY_FILE, max_examples=30)
@example(key="data.paired.remote", value="~0")  # the home of nobody
@given(key=st.sampled_from(leaves(yaml.safe_load(DEBUG))), value=st.integers() | st.floats() | st.booleans() | PLAIN)
def test_any_value_of_a_real_key_is_taken_or_refused_and_what_is_taken_is_saved_exactly(tmp_path, key, value):
    tree = yaml.safe_load(DEBUG)
    *parents, name = key.split(".")
    place = tree
    for parent in parents:
        place = place[parent]
    place[name] = value
    try:
        config = load(tmp_path, yaml.dump(tree, allow_unicode=True), cls=TrainConfig)
    except UserError as error:  # most are refused, some are not
        assert name in str(error)  # noqa: PT017
        return
    assert load(tmp_path, to_yaml(config), cls=TrainConfig) == config


@pytest.mark.parametrize("name", ["..", "a/b", "../a", "", "/a", "a\nb", "a\x1b[2J", "x" * 201])
def test_a_run_stays_below_its_output(tmp_path, name):
    with pytest.raises(UserError, match="run_name"):
        load(tmp_path, yaml.safe_dump(yaml.safe_load(DEBUG) | {"run_name": name}), cls=TrainConfig)
