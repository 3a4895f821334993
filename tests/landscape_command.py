"""The command `kernelevolve` on a landscape, with each job written down: `python landscape_command.py LOG ...`."""

import sys
import time
from pathlib import Path

import searching
from talking import by_number

import kernelevolve.certify
import kernelevolve.outside
from kernelevolve.catalog import Catalog
from kernelevolve.cli.app import main
from kernelevolve.testing.records import a_passed


def answer(job):
    with Path(sys.argv[1]).open("a") as log:
        log.write(f"{job.purpose} {job.candidate.digest}\n")
    time.sleep(0.03)
    speedup = by_number(job) if "main.cpp" in job.candidate.files else 1.1
    return a_passed(job.candidate, speedup, purpose=job.purpose, target=job.target.digest)


if __name__ == "__main__":
    searching.Landscape.answer = staticmethod(answer)
    searching.Landscape.jobs = []
    judges = Catalog("executors", {"local": "searching:Landscape"})
    kernelevolve.outside.EXECUTORS = kernelevolve.certify.EXECUTORS = judges
    sys.exit(main(sys.argv[2:]))
