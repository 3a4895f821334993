import pytest

from kernelevolve.catalog import LANGUAGES, POLICIES, Catalog
from kernelevolve.errors import UnknownNameError


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"no policy is called 'greedier' .*best-of-n, greedy, islands"):
        POLICIES.load("greedier")
    with pytest.raises(UnknownNameError, match="no language is called"):
        LANGUAGES.load("fortran")


def test_a_name_loads_the_class_behind_it():
    assert Catalog("things", {"path": "pathlib:Path"}).load("path").__name__ == "Path"


def test_an_installed_package_can_add_a_name(tmp_path, monkeypatch):
    info = tmp_path / "extra_things-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra-things\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kernelevolve.things]\npure = pathlib:PurePath\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    things = Catalog("things", {"path": "pathlib:Path"})
    assert things.names() == ("path", "pure")
    assert things.load("pure").__name__ == "PurePath"
