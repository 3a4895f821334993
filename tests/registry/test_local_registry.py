"""A registry in a folder: what goes in comes out, or is reported damaged."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kernelevolve.errors import RegistryError, UsageError
from kernelevolve.registry.base import Registry, Stored
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.testing.records import SOURCE, a_candidate, a_hardware
from kernelevolve.testing.registry_records import an_entry


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    return LocalRegistry(tmp_path / "registry")


def everything(path: Path) -> list[Path]:
    return sorted(path.rglob("*"))


def test_a_published_entry_is_found_again(registry: LocalRegistry):
    seam: Registry = registry
    entry = an_entry()
    home = seam.publish(entry)
    assert home == registry.path / "double" / "test-cpu-2c" / entry.digest
    assert seam.entries() == (Stored(home, entry),)
    assert seam.read(home) == entry
    assert seam.find(entry.digest[:8]) == Stored(home, entry)
    assert all(finding.ok for finding in seam.verify())


def test_the_sources_can_be_read_as_they_were_written(registry: LocalRegistry):
    files = {"main.cpp": SOURCE, "detail/heap.h": "// é\n"}
    home = registry.publish(an_entry(candidate=a_candidate(files=files)))
    assert {name: (home / "sources" / name).read_text(encoding="utf-8") for name in files} == files


def test_an_empty_registry_need_not_exist(registry: LocalRegistry):
    assert registry.entries() == ()
    assert registry.verify() == ()


def test_publishing_again_changes_nothing(registry: LocalRegistry):
    home = registry.publish(an_entry())
    before = {path: path.stat().st_mtime_ns for path in everything(registry.path)}
    assert registry.publish(an_entry()) == home
    assert {path: path.stat().st_mtime_ns for path in everything(registry.path)} == before


def test_entries_can_be_asked_for_by_target_and_by_a_machine_s_key_or_alias(registry: LocalRegistry):
    here = an_entry(hardware=a_hardware(key="here", aliases=("also-here",)))
    there = an_entry(hardware=a_hardware(key="there"))
    other = an_entry(target="triple", hardware=a_hardware(key="here"))
    for entry in (here, there, other):
        registry.publish(entry)

    def found(**filters):
        return {stored.entry.digest for stored in registry.entries(**filters)}

    assert found() == {here.digest, there.digest, other.digest}
    assert found(target="double") == {here.digest, there.digest}
    assert found(target="double", hardware_key="here") == {here.digest}
    assert found(hardware_key="also-here") == {here.digest}
    assert found(target="nothing") == set()
    assert len(registry.verify("double")) == 2


def truncate(home: Path) -> None:
    (home / "entry.json").write_bytes(b"")


def garble(home: Path) -> None:
    (home / "entry.json").write_text("{")


def change_source(home: Path) -> None:
    (home / "sources" / "main.cpp").write_text(SOURCE.replace("2.0f", "3.0f"))


def lose_source(home: Path) -> None:
    (home / "sources" / "main.cpp").unlink()


def add_file(home: Path) -> None:
    (home / "sources" / "more.cpp").write_text("")


def lose_manifest(home: Path) -> None:
    (home / "manifest.json").unlink()


def empty_manifest(home: Path) -> None:
    (home / "manifest.json").write_bytes(b"")


def binary_manifest(home: Path) -> None:
    (home / "manifest.json").write_bytes(b"\xff\xfe\x00")


def rewrite_with_digests(home: Path) -> None:
    import hashlib

    entry = json.loads((home / "entry.json").read_text())
    entry["domain"][0]["axes"]["N"] = [1, 1 << 40]
    data = json.dumps(entry).encode()
    (home / "entry.json").write_bytes(data)
    manifest = json.loads((home / "manifest.json").read_text())
    manifest["files"]["entry.json"] = hashlib.sha256(data).hexdigest()
    (home / "manifest.json").write_text(json.dumps(manifest))


DAMAGES = [
    truncate, garble, change_source, lose_source, add_file, lose_manifest, empty_manifest, binary_manifest,
    rewrite_with_digests,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_reported_left_out_and_replaced_by_publishing_again(registry: LocalRegistry, damage):
    sound = registry.publish(an_entry(hardware=a_hardware(key="another")))
    home = registry.publish(an_entry())
    damage(home)
    assert [stored.path for stored in registry.entries()] == [sound]
    assert [(finding.path, finding.ok) for finding in registry.verify()] == [(sound, True), (home, False)]
    (finding,) = (finding for finding in registry.verify() if not finding.ok)
    assert str(home) in finding.problem
    with pytest.raises(RegistryError) as caught:
        registry.read(home)
    assert "publish" in caught.value.remedy
    assert registry.publish(an_entry()) == home
    assert all(finding.ok for finding in registry.verify())


def test_an_entry_that_was_moved_to_another_digest_is_damaged(registry: LocalRegistry):
    home = registry.publish(an_entry())
    home.rename(home.with_name("0" * 64))
    assert registry.entries() == ()
    assert "digest" in registry.verify()[0].problem


def test_a_digest_must_name_one_entry(registry: LocalRegistry):
    with pytest.raises(UsageError, match="no entry"):
        registry.find("abc")
    registry.publish(an_entry())
    registry.publish(an_entry(hardware=a_hardware(key="another")))
    with pytest.raises(UsageError, match="2 entries"):
        registry.find("")


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "../double"},
        {"target": ".double"},
        {"target": ""},
        {"hardware": a_hardware(key="a/b")},
        {"candidate": a_candidate(files={"../../main.cpp": ""})},
        {"candidate": a_candidate(files={"/tmp/main.cpp": ""})},
    ],
)
def test_nothing_is_written_outside_the_registry(registry: LocalRegistry, changes):
    with pytest.raises(RegistryError):
        registry.publish(an_entry(**changes))
    assert everything(registry.path.parent) == []


FILL = """
import resource, signal, sys
from kernelevolve.errors import RegistryError
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.testing.registry_records import an_entry

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    LocalRegistry(sys.argv[1]).publish(an_entry())
except RegistryError as error:
    print("refused:", error)
"""


def test_a_disk_that_refuses_to_take_more_leaves_nothing_half_written(tmp_path: Path):
    command = [sys.executable, "-c", FILL, str(tmp_path / "registry")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("refused: can't publish"), done.stderr
    assert everything(tmp_path / "registry") == []


def test_a_registry_below_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match="can't publish"):
        LocalRegistry(tmp_path / "file").publish(an_entry())


def test_publishers_at_the_same_time_leave_one_sound_entry(registry: LocalRegistry):
    start, failures = threading.Barrier(8), []

    def publish():
        start.wait()
        try:
            registry.publish(an_entry())
        except RegistryError as error:
            failures.append(error)

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [finding.ok for finding in registry.verify()] == [True]
    assert [path.name for path in registry.path.iterdir()] == ["double"]


def test_an_unfinished_publication_is_not_an_entry(registry: LocalRegistry):
    home = registry.publish(an_entry())
    left_over = registry.path / ".publish-abc" / "entry"
    left_over.mkdir(parents=True)
    (left_over / "sources").mkdir()
    assert [finding.path for finding in registry.verify()] == [home]
