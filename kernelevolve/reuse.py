"""Evaluations of earlier runs: what was measured of a kernel on this machine need not be measured again."""

from dataclasses import dataclass

from kernelevolve.schema import Calibration, Candidate, Evaluation, Passed, Reused, RunSpec, StageCosts
from kernelevolve.standing import fastest_baselines
from kernelevolve.store import Store


@dataclass(frozen=True)
class EarlierRuns:
    """What earlier runs on the same target, hardware and number of threads measured."""

    spec: RunSpec
    calibration: Calibration
    store: Store

    def __call__(self, candidate: Candidate) -> Evaluation | None:
        """The evaluation of the same kernel, as one of this candidate that cost nothing; None where there is none.

        It has to be of the same versions of everything, on the same workloads, against the same baselines. A failure
        is not taken over: the machine may have been to blame.
        """
        spec = self.spec
        known = self.store.find_evaluation(
            spec.target.digest, spec.hardware.key, candidate.code, normal=candidate.normal, threads=spec.threads
        )
        if not isinstance(known, Passed) or not self._still_holds(known):
            return None
        note = Reused(
            message="measured in an earlier run on this machine, and not again",
            advice="nothing to do",
            of=known.candidate,
        )
        findings = (note, *(d for d in known.diagnostics if not isinstance(d, Reused)))
        return known.model_copy(update={"candidate": candidate.digest, "diagnostics": findings, "costs": StageCosts()})

    def _still_holds(self, known: Passed) -> bool:
        baselines = {m.workload: m.baseline for m in known.measurements}
        return (
            baselines == fastest_baselines(self.calibration)
            and known.environment.versions == self.calibration.environment.versions
            and known.environment.sandbox == self.calibration.environment.sandbox
        )
