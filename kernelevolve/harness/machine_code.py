"""The digest of what a compiler made: kernels that differ only in what it removed are one kernel."""

import hashlib
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

_BUILD_ID = ".note.gnu.build-id"


def code_digest(artifact: Path) -> str | None:
    """SHA-256 over everything of a shared object that is loaded; None for a source that is compiled as it runs.

    Left out are the build's own name and what is only there for debuggers.
    """
    if artifact.suffix != ".so":
        return None
    digest = hashlib.sha256()
    with artifact.open("rb") as stream:
        for section in ELFFile(stream).iter_sections():
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section.name != _BUILD_ID:
                digest.update(f"{section.name} {section['sh_type']} {section['sh_size']}\n".encode())
                digest.update(section.data())
    return digest.hexdigest()
