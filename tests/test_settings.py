from pathlib import Path

import pytest

from kernelevolve import settings
from kernelevolve.errors import SettingsError


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in settings.Settings.model_fields:
        monkeypatch.delenv(f"KERNELEVOLVE_{name.upper()}", raising=False)
    monkeypatch.delenv("KERNELEVOLVE_SETTINGS", raising=False)


def test_every_setting_has_a_default_and_a_description():
    loaded = settings.load()
    assert loaded.evals == 60
    assert loaded.runs == Path("runs")
    assert loaded.registry.parts[-2:] == ("kernelevolve", "registry")
    assert all(field.description for field in settings.Settings.model_fields.values())


def test_the_environment_beats_the_file_and_the_command_line_beats_both(monkeypatch):
    Path("kernelevolve.toml").write_text("evals = 10\nseed = 11\nminutes = 1.5\n")
    monkeypatch.setenv("KERNELEVOLVE_EVALS", "20")
    monkeypatch.setenv("KERNELEVOLVE_SEED", "21")
    loaded = settings.load(evals=30, policy=None)
    assert (loaded.evals, loaded.seed, loaded.minutes, loaded.policy) == (30, 21, 1.5, "adaptive")


def test_the_constructor_reads_neither_file_nor_environment(monkeypatch):
    Path("kernelevolve.toml").write_text("evals = 10\n")
    monkeypatch.setenv("KERNELEVOLVE_EVALS", "20")
    assert settings.Settings().evals == 60


def test_the_settings_variable_names_another_file(monkeypatch, tmp_path):
    (tmp_path / "other.toml").write_text('policy = "random"\n')
    monkeypatch.setenv("KERNELEVOLVE_SETTINGS", str(tmp_path / "other.toml"))
    assert settings.load().policy == "random"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eval = 3\n", r"kernelevolve\.toml, key eval: .*did you mean evals"),
        ("[search]\nevals = 3\n", r"kernelevolve\.toml, key search"),
        ('evals = "many"\n', r"kernelevolve\.toml, key evals: .*'many'"),
        ("evals = 0\n", r"kernelevolve\.toml, key evals: .*greater than or equal to 1"),
        ("evals = \n", r"kernelevolve\.toml is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_key(text, expected):
    Path("kernelevolve.toml").write_text(text)
    with pytest.raises(SettingsError, match=expected):
        settings.load()


def test_an_unknown_variable_is_an_error_that_names_the_close_one(monkeypatch):
    monkeypatch.setenv("KERNELEVOLVE_EVAL", "3")
    with pytest.raises(SettingsError, match=r"KERNELEVOLVE_EVAL: .*did you mean KERNELEVOLVE_EVALS"):
        settings.load()


def test_an_ill_typed_variable_is_named(monkeypatch):
    monkeypatch.setenv("KERNELEVOLVE_MINUTES", "soon")
    with pytest.raises(SettingsError, match=r"environment variable KERNELEVOLVE_MINUTES: .*'soon'"):
        settings.load()


def test_an_ill_typed_option_is_named():
    with pytest.raises(SettingsError, match=r"option --evals"):
        settings.load(evals=0)


def test_a_settings_file_that_is_not_there_is_an_error():
    with pytest.raises(SettingsError, match=r"option --settings: there is no file 'missing\.toml'"):
        settings.load(Path("missing.toml"))


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        settings.load().evals = 3  # type: ignore[misc]


def test_models_are_a_list_in_the_file_and_come_with_commas_in_the_environment(monkeypatch):
    Path("kernelevolve.toml").write_text('model = ["one", "two"]\n')
    assert settings.load().model == ("one", "two")
    monkeypatch.setenv("KERNELEVOLVE_MODEL", "three, openai-chat:four@http://localhost:8000/v1")
    assert settings.load().model == ("three", "openai-chat:four@http://localhost:8000/v1")
    assert settings.load(model=["five"]).model == ("five",)


def test_an_option_is_named_as_it_is_written():
    with pytest.raises(SettingsError, match=r"option --target-speedup: .*greater than 0"):
        settings.load(target_speedup=-1.0)
