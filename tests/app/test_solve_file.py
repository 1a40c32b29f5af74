"""The YAML file: what it means, how it is overridden, and where its errors point."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import mipnet.app.files
from mipnet.app.files.formulation_section import FormulationSpec
from mipnet.app.files.sections import DataSpec
from mipnet.app.files.solve_file import SolveFile, load_spec
from mipnet.app.files.yaml_source import Override, parse_set, read_source
from mipnet.errors import NetworkError, SpecError
from mipnet.formulations.registry import all_formulations
from mipnet.readers import data

EXAMPLES = Path(__file__).parents[2] / "examples"
TEMPLATE = Path(mipnet.app.files.__file__).with_name("template.yaml")
SMALL = "mipnet: 1\ntask: importance\nnetwork: {file: net.pt2}\ndata: {source: digits, total: 3}\n"


def refusal(path: Path, *overrides: Override) -> str:
    """The message with which a spec is refused; empty if it is taken."""
    try:
        load_spec(path, overrides)
    except SpecError as error:
        return str(error).replace(str(path), "")
    return ""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.mark.parametrize("name", ["digits.yaml", "digits_cnn.yaml"])
def test_the_examples_are_read_as_they_stand(name: str) -> None:
    path = EXAMPLES / name
    spec, plain = load_spec(path), yaml.safe_load(path.read_text())
    assert spec.model_dump(exclude_unset=True, mode="json") == plain
    assert spec.path(spec.network.file) == EXAMPLES / plain["network"]["file"]


def test_what_is_left_out_has_defaults(small: Path) -> None:
    spec = load_spec(small)
    assert (spec.solve.backend, spec.solve.seconds, spec.solve.mip_gap) == ("highs", math.inf, 1e-4)
    assert (spec.formulation.bounds, spec.gates.layers, spec.prune.value, spec.output) == ("paper", "all", 0.1, None)
    assert load_spec(small, ["prune.threshold={params: 0.5}"]).prune.value == {"params": 0.5}
    assert load_spec(small, ["prune.threshold=mean"]).prune.value == "mean"


def test_the_template_names_every_key_and_its_default() -> None:
    """A key that the template shows as left out is a comment; uncommented they are all the keys there are."""
    text = TEMPLATE.read_text()
    given = yaml.safe_load(text)
    everything = yaml.safe_load("\n".join(line.replace("# ", "", 1) if line.startswith("  # ") else line for line in text.split("\n")))
    for name, section in SolveFile.model_fields.items():
        known = getattr(section.annotation, "model_fields", None)
        assert name in given
        if known is not None:
            missing = set(known) - set(everything[name]) - {"total"}
            assert not missing, name
    load_spec(TEMPLATE)


def test_the_words_are_those_of_the_reader() -> None:
    fields = DataSpec.model_fields
    assert get_args(fields["source"].annotation) == data.DATA_SOURCES
    assert get_args(fields["split"].annotation) == data.DATA_SPLITS
    assert get_args(fields["pick"].annotation) == data.SAMPLE_PICKS


def test_numbers_may_be_written_as_in_yaml_1_2(small: Path) -> None:
    small.write_text(SMALL + "solve: {mip_gap: 1e-3, time_limit: 2E1, nodes: 1_000}\n")
    spec = load_spec(small)
    assert (spec.solve.mip_gap, spec.solve.time_limit, spec.solve.nodes) == (1e-3, 20.0, 1000)


def test_overrides_win_in_order(small: Path) -> None:
    spec = load_spec(small, ["solve.backend=scip", "solve.options.limits/x=3", "data={source: mnist, total: 4}", "data.total=5"])
    assert (spec.solve.backend, spec.solve.options, spec.data.source, spec.data.total) == ("scip", {"limits/x": 3}, "mnist", 5)
    assert load_spec(small, [Override(("output",), "1e5", "--output 1e5")]).output == "1e5"
    assert load_spec(small, ["data.total=null", "data.per_class=2"]).data.per_class == 2


def test_a_value_of_set_is_yaml() -> None:
    assert parse_set("a.b=[1, 2]") == Override(("a", "b"), [1, 2], "--set a.b=[1, 2]")
    assert parse_set("a.3.c=x=y") == Override(("a", 3, "c"), "x=y", "--set a.3.c=x=y")
    assert parse_set("a=").value is None


def test_errors_point_at_the_line_of_the_key(small: Path) -> None:
    small.write_text(SMALL + "\n# a comment\nsolve:\n  backend: highs\n  options:\n    a: 1\n    b:\n      - 2\n")
    with pytest.raises(SpecError, match=rf"^{small}, line 11: solve\.options\.b: got \[2\]; expected a number, a string, true or false$"):
        load_spec(small)
    source = read_source(small)
    assert source.at(("solve", "backend")) == f"{small}, line 8"
    assert source.at(("solve", "absent")) == f"{small}, line 7"
    assert source.at(("absent",)) == f"{small}, line 1"


def test_what_goes_wrong_later_is_put_down_to_a_key(small: Path) -> None:
    spec = load_spec(small, ["network.file=x.pt2"])
    with pytest.raises(NetworkError, match=rf"^{small}, line 3, --set network\.file=x\.pt2: network: no file$"), spec.blame("network"):
        raise NetworkError("no file")
    with pytest.raises(SpecError, match=r"^as it is$"), spec.blame("network"):
        raise SpecError("as it is")


def test_merge_keys_and_anchors_work(small: Path) -> None:
    small.write_text(SMALL.replace("data:", "data: &d").replace("network: {", "network: {") + "solve: &s {backend: scip}\n")
    assert load_spec(small).solve.backend == "scip"
    small.write_text("mipnet: 1\ntask: importance\nnetwork: {file: a.pt2}\ndata: {<<: &x {source: digits, total: 3}, total: 4}\n")
    assert load_spec(small).data.total == 4


@pytest.mark.parametrize(
    ("first", "next_"),
    [
        ("[x, x, x, x, x, x, x, x, x]", "[{}, {}, {}, {}, {}, {}, {}, {}, {}]"),
        ("{k: x}", "{{<<: [{}, {}, {}, {}, {}, {}, {}, {}, {}]}}"),
        ("{k: x}", "{{a: {}, b: {}, c: {}, d: {}}}"),
    ],
)
def test_references_that_multiply_are_refused(small: Path, first: str, next_: str) -> None:
    lines = [f"a0: &a0 {first}"] + [f"a{i}: &a{i} {next_.format(*[f'*a{i - 1}'] * 9)}" for i in range(1, 30)]
    small.write_text("\n".join(lines) + "\n")
    with pytest.raises(SpecError, match=r"line 30: references .* repeat more than 100,000 values; write fewer") as caught:
        load_spec(small)
    assert len(str(caught.value)) < 400


def test_what_an_alias_repeats_is_a_copy(small: Path) -> None:
    """`--set second.file=...` must not change the first network as well."""
    small.write_text("mipnet: 1\nnetwork: &n {file: a.onnx}\nsecond: *n\n")
    data = read_source(small, [parse_set("second.file=b.onnx")]).data
    assert (data["network"], data["second"]) == ({"file": "a.onnx"}, {"file": "b.onnx"})


def test_nothing_changes_later(small: Path) -> None:
    spec = load_spec(small)
    with pytest.raises(ValidationError):
        spec.output = "elsewhere"  # type: ignore[misc]


def test_the_resolved_spec_runs_from_anywhere(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    resolved = load_spec(Path("small.yaml"), ["output=runs/x", "data={source: npz, file: a.npz, total: 2}"]).resolved()
    assert resolved["network"]["file"] == str(tmp_path / "net.pt2")
    assert (resolved["data"]["root"], resolved["output"]) == (str(tmp_path), str(tmp_path / "runs/x"))
    again = tmp_path / "deeper" / "model.yaml"
    again.parent.mkdir()
    again.write_text(yaml.safe_dump(resolved))
    assert load_spec(again).resolved() == resolved


def test_the_schema_is_a_schema() -> None:
    schema = json.loads(json.dumps(SolveFile.model_json_schema()))
    assert schema["required"] == ["mipnet", "task", "network", "data"]
    assert schema["additionalProperties"] is False
    assert set(schema["$defs"]["FormulationSpec"]["properties"]) == set(FormulationSpec.model_fields) | set(all_formulations())


def test_reading_a_spec_loads_no_torch() -> None:
    code = "import sys, mipnet.app.files.solve_file; sys.exit(bool({'torch', 'numpy', 'linopy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=240).returncode == 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    key=st.sampled_from(["mipnet", "task", "network", "data", "gates", "formulation", "objective", "solve", "prune", "output", "other"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["file", "source", "threshold", "layers", "x"]), inner),
        max_leaves=5,
    ),
)
def test_any_value_is_taken_or_refused_in_one_line(small: Path, key: str, value: object) -> None:
    said = refusal(small, Override((key,), value, f"--{key}"))
    assert "\n" not in said
    assert len(said) < 400


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(place=st.integers(0, len(SMALL)), junk=st.text(alphabet="{}[]:-#&*!|>'\"\n\t ,x1\x00é", max_size=6))
def test_any_text_is_taken_or_refused_in_one_line(small: Path, place: int, junk: str) -> None:
    small.write_text(SMALL[:place] + junk + SMALL[place:])
    assert "\n" not in refusal(small)
