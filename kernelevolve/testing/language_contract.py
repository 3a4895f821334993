"""What every kernel language has to keep to: derive a test class, and say what its kernels look like.

::

    class TestMyLanguage(LanguageContract):
        language = MyLanguage()
        good = a_candidate(language="mine", files={"main.mine": ...}, tunables={})
        broken, broken_at = a_candidate(...), ("main.mine", 3)
        without_entry = {"main.mine": ...}
        ill_formed_tunable = {"main.mine": ...}

Whether its kernels compute is another class, so that it can be asked where there is a device: `ComputingContract`.
A fixture `cache_dir` (a folder for builds, best kept for the whole session) comes from your conftest.py.
"""

from pathlib import Path
from typing import ClassVar

import pytest
import torch

from kernelevolve.catalog import LANGUAGES
from kernelevolve.errors import ToolchainError, UsageError
from kernelevolve.harness.build import BuildFailed, Built, build
from kernelevolve.languages.base import Language
from kernelevolve.schema import Candidate, Hardware, Limits
from kernelevolve.testing.records import a_hardware


class LanguageContract:
    """The suite. All class variables without a value have to be given one."""

    language: ClassVar[Language]
    good: ClassVar[Candidate]
    """doubles a vector (`run(x, y)`: y = 2 x), has at least one tunable and names none of its values"""
    broken: ClassVar[Candidate]
    """doesn't compile"""
    broken_at: ClassVar[tuple[str, int]]
    """file and line of its mistake"""
    without_entry: ClassVar[dict[str, str]]
    """files that compile and export nothing"""
    ill_formed_tunable: ClassVar[dict[str, str]]
    """files whose declaration of a tunable can't be read"""
    hardware: ClassVar[Hardware] = a_hardware()
    """what it is built for; it needn't be here"""
    other_architecture: ClassVar[str] = "another"
    """of hardware that it can be built for too"""

    def build(self, candidate: Candidate, cache_dir: Path) -> Built | BuildFailed:
        """What the harness makes of a candidate."""
        return build(candidate, self.hardware, Limits(), cache_dir)

    def test_the_catalog_knows_it_by_its_name(self) -> None:
        """A run's record names languages, and a resumed run loads them by name."""
        assert isinstance(self.language, LANGUAGES.load(self.language.name))

    def test_a_good_kernel_is_admitted(self) -> None:
        """Without a finding."""
        assert self.language.admit(self.good.files) == ()

    def test_a_kernel_without_its_entry_point_is_refused_with_advice(self) -> None:
        """Before anything is built."""
        findings = self.language.admit(self.without_entry)
        assert findings
        assert all(finding.kind == "parse" and finding.advice for finding in findings)
        assert self.language.admit(self.good.files, entry="no_such_entry")

    @pytest.mark.parametrize("path", ["/etc/main", "../main", "a/../../main", "-o", "a\0", "", "main" * 80, "a\nb"])
    def test_files_have_plain_names_in_their_folder(self, path: str) -> None:
        """No absolute path, no way up, no option of a compiler, nothing that a disk refuses."""
        extra = {path + self.language.suffixes[0]: "\n"}
        assert self.language.admit({**self.good.files, **extra})

    def test_a_file_is_no_folder(self) -> None:
        """Two files of which one would have to lie in the other."""
        inside = {f"{path}/more{self.language.suffixes[0]}": "" for path in self.good.files}
        assert self.language.admit({**self.good.files, **inside})

    def test_files_of_another_kind_are_refused(self) -> None:
        """By their suffix."""
        assert self.language.admit({**self.good.files, "main.unknown": ""})

    def test_an_ill_formed_tunable_is_a_finding_and_not_an_exception(self) -> None:
        """`tunables` itself raises, and says where."""
        findings = self.language.admit(self.ill_formed_tunable)
        assert [finding.kind for finding in findings] == ["parse"]
        with pytest.raises(UsageError, match=next(iter(self.ill_formed_tunable))):
            self.language.tunables(self.ill_formed_tunable)

    def test_a_tunable_that_is_not_chosen_has_its_first_value(self) -> None:
        """A candidate may name all, some or none of its tunables."""
        declared = self.language.tunables(self.good.files)
        assert declared
        defaults = {name: values[0] for name, values in declared.items()}
        explicit = self.good.model_copy(update={"tunables": defaults})
        assert self.language.sources(self.good) == self.language.sources(explicit)

    def test_every_value_of_a_tunable_gives_other_sources_with_the_same_lines(self) -> None:
        """What a compiler says of a line is true of the line that was written."""
        seen = []
        for name, values in self.language.tunables(self.good.files).items():
            for value in values[1:]:
                sources = self.language.sources(self.good.model_copy(update={"tunables": {name: value}}))
                assert {p: t.count("\n") for p, t in sources.items()} == {
                    p: t.count("\n") for p, t in self.good.files.items()
                }
                seen.append(sources)
        seen.append(self.language.sources(self.good))
        assert all(a != b for i, a in enumerate(seen) for b in seen[:i])

    def test_a_build_is_told_apart_by_the_machine_it_is_for(self) -> None:
        """The same plan for the same machine, another fingerprint for another one."""
        plan = self.language.build_plan(self.good, self.hardware)
        assert plan == self.language.build_plan(self.good, self.hardware)
        other = self.hardware.model_copy(update={"architecture": self.other_architecture})
        assert plan.fingerprint != self.language.build_plan(self.good, other).fingerprint

    def test_a_good_kernel_builds_and_loads(self, cache_dir: Path) -> None:
        """In this process, as a serving one does it; without the device that it is for."""
        built = self.build(self.good, cache_dir)
        assert isinstance(built, Built), built
        loaded = self.language.load(built.artifact)
        assert callable(loaded.run)
        assert loaded.prepare is None

    def test_a_broken_kernel_is_diagnosed_at_its_line(self, cache_dir: Path) -> None:
        """As a value, with something to do about it."""
        failed = self.build(self.broken, cache_dir)
        assert isinstance(failed, BuildFailed)
        first = failed.diagnostics[0]
        assert first.kind == "compile"
        assert (first.file, first.line) == self.broken_at
        assert first.message
        assert first.advice

    @pytest.mark.parametrize("output", ["", "something went wrong\n", "main:1: error\n\x00\ufffd"])
    def test_a_failure_is_never_without_a_finding(self, output: str) -> None:
        """Whatever the compiler printed."""
        findings = self.language.diagnose(output)
        assert findings
        assert all(finding.message for finding in findings)

    def test_an_artifact_that_is_damaged_is_our_failure(self, tmp_path: Path) -> None:
        """Missing, empty, or something else altogether."""
        name = self.language.build_plan(self.good, self.hardware).artifact
        for content in (None, b"", b"not an artifact"):
            artifact = tmp_path / name
            if content is not None:
                artifact.write_bytes(content)
            with pytest.raises(ToolchainError, match=name):
                self.language.load(artifact)


class ComputingContract:
    """What a kernel gives on its device. Mark the class `gpu` where that is what it needs."""

    language: ClassVar[Language]
    good: ClassVar[Candidate]
    """as in `LanguageContract`"""
    device: ClassVar[str] = "cpu"
    """where the tensors of a call lie, by torch's name"""

    def present(self) -> Hardware:
        """The device of this machine that it is built for."""
        return a_hardware()

    def test_a_good_kernel_computes(self, cache_dir: Path) -> None:
        """Every element, into an output that the caller has allocated."""
        built = build(self.good, self.present(), Limits(), cache_dir)
        assert isinstance(built, Built), built
        x = torch.arange(1000, dtype=torch.float32, device=self.device)
        y = torch.full_like(x, -1)
        self.language.load(built.artifact).run(x, y)
        assert torch.equal(y, 2 * x)
