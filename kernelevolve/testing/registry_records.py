"""Small, valid entries for tests of registries and runtimes."""

from typing import Any

from kernelevolve.registry.domain import domain
from kernelevolve.schema import Entry, Provenance
from kernelevolve.testing.records import a_candidate, a_hardware, a_measurement, a_target, an_environment


def an_entry(**changes: Any) -> Entry:
    """A certified kernel of the doubling target. Without `domain`, that of its evidence."""
    fields: dict[str, Any] = {
        "target": a_target().name,
        "target_digest": a_target().digest,
        "hardware": a_hardware(),
        "candidate": a_candidate(),
        "evidence": (a_measurement(),),
        "environment": an_environment(),
        "provenance": Provenance(created_at="2026-01-02T03:04:05+00:00", kernelevolve="0.1.0"),
        **changes,
    }
    return Entry(**{"domain": domain(fields["evidence"]), **fields})
