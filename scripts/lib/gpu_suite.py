"""Brings up a GPU model: each part runs as a command of its own, bounded in time, and leaves its JSON in a folder."""

import argparse
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts" / "lib"
LEAST_S = 30.0
"""Seconds for any part: importing torch takes some of them."""
ALSO = {"triton": ("pytorch-triton", "pytorch-triton-rocm", "triton-rocm")}
"""Other names under which the same is installed."""
FOUND_IN = (str(ROOT), str(SCRIPTS))
TARGETS = ("topk", "request_broadcast", "grouped_gemm")
COMMAND = (sys.executable, "-c", "from kernelevolve.cli.app import main; raise SystemExit(main())")


@dataclass(frozen=True)
class Part:
    """One command. What it prints on standard output is its result."""

    name: str
    share: float
    """of the time"""
    argv: tuple[str, ...]
    fine: tuple[int, ...] = (0,)
    """exit codes that say that it was done"""


def parts(out: Path, key: str, minutes: float) -> Iterator[Part]:
    on_device = ("--hardware", key)
    bench = (sys.executable, str(SCRIPTS / "bench_kernels.py"), "--json", *on_device)
    kept = ("--runs", str(out / "runs"), "--registry", str(out / "registry"))
    yield Part("doctor", 0.02, (*COMMAND, "doctor", "--json"), (0, 1))
    yield Part("ceilings", 0.03, (*COMMAND, "hardware", "ceilings", *on_device, "--json"))
    tests = (sys.executable, "-m", "pytest", "-p", "failures_at_once", "-m", "gpu", "-v", str(ROOT / "tests"))
    yield Part("tests", 0.20, (*tests, f"--junitxml={out / 'tests.xml'}", "-o", f"cache_dir={out / 'cache'}"), (0, 1))
    waiting = queues(out, key)
    for target, files in waiting.items():
        share = 0.18 / len(waiting)
        named = [word for file in files for word in ("--queue", str(file))]
        # Half of the time: certification, and compiling its baselines, come after it.
        drain = ("eval", *named, "--workers", "4", "--minutes", f"{share * 0.5 * minutes:g}", "--certify", *kept[2:])
        yield Part(f"queue-{target}", share, (*COMMAND, *drain, "--json"), (0, 3, 4))
    for target in TARGETS:
        yield Part(f"seeds-{target}", 0.06, (*bench, "--seeds", "--target", target), (0, 1))
    for target in TARGETS:
        share = 0.08
        search = ("search", target, *on_device, "--evals", "200", "--minutes", f"{share * 0.7 * minutes:g}", *kept)
        yield Part(f"search-{target}", share, (*COMMAND, *search, "--json"), (0, 4))
    for target in TARGETS:
        certified = (*bench, "--target", target, "--registry", str(out / "registry"))
        yield Part(f"certified-{target}", 0.03, certified, (0, 1))
    estimate = (sys.executable, str(SCRIPTS / "bench_estimate.py"), "--json", *on_device)
    share = 0.06
    budget = ("--minutes", f"{share * 0.2 * minutes:g}", "--runs", str(out / "estimate"))
    yield Part("estimate", share, (*estimate, *budget))


def queues(out: Path, key: str) -> dict[str, list[Path]]:
    """Queues of triaged kernels that wait for this device in runs/, by target, unpacked where their results go."""
    found: dict[str, list[Path]] = {}
    for packed in sorted((ROOT / "runs").glob("*/queue.json.gz")):
        text = gzip.decompress(packed.read_bytes())
        queue = json.loads(text)
        if queue["hardware_key"] == key:
            file = out / "queues" / f"{packed.parent.name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
            found.setdefault(queue["target"], []).append(file)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--minutes", type=float, default=30.0, help="for everything that isn't done yet (default: 30)")
    parser.add_argument("--hardware", help="key or alias of a GPU of this machine (default: the first)")
    parser.add_argument("--part", action="append", help="only parts whose names begin so; may be given again")
    options = parser.parse_args()
    if missing := absent():
        print(f"{sys.executable} has no {', '.join(missing)}; install them, or set PYTHON", file=sys.stderr)
        return 2
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    key = device(options.hardware)
    failed = []
    for part in parts(out, key, options.minutes):
        if options.part and not part.name.startswith(tuple(options.part)):
            continue
        status = done_before(out / f"{part.name}.json") or run(part, out, part.share * options.minutes * 60)
        print(f"{part.name:<28}{status}", file=sys.stderr, flush=True)
        if status != "done":
            failed.append(part.name)
    if failed:
        print(f"not done: {', '.join(failed)}; call again to try these again", file=sys.stderr)
    return bool(failed)


def absent() -> list[str]:
    """Distributions that the package, or its tests, need and this Python lacks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [re.match(r"[\w-]+", line)[0] for line in (*project["dependencies"], "pytest", "pytest-timeout")]
    return [name for name in wanted if not any(distribution(n) for n in (name, *ALSO.get(name, ())))]


def distribution(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def device(name: str | None) -> str:
    """The registry's key of a GPU of this machine. Exits with 2 where there is none."""
    from kernelevolve import hardware

    for found in hardware.detect_all():
        if found.device == "gpu" and name in (None, found.key, *found.aliases):
            return found.key
    print("there is no such GPU on this machine; kernelevolve doctor says what is here", file=sys.stderr)
    raise SystemExit(2)


def done_before(file: Path) -> str | None:
    """The status of an earlier sitting, where it came to an end."""
    try:
        status = json.loads(file.read_text())["status"]
    except (OSError, ValueError, KeyError):
        return None
    return "done" if status == "done" else None


def run(part: Part, out: Path, seconds: float) -> str:
    """Run one command within its time and write its result; killed as a group past it."""
    started = time.monotonic()
    log = out / f"{part.name}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            part.argv, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (*FOUND_IN, os.environ.get("PYTHONPATH"))))},
        )  # fmt: skip
        try:
            printed, _ = process.communicate(timeout=max(seconds, LEAST_S))
            status = "done" if process.returncode in part.fine else f"failed with exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
            status = f"stopped after {seconds:.0f} s"
    record = {
        "part": part.name, "status": status, "exit_code": process.returncode, "command": list(part.argv),
        "at": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": time.monotonic() - started,
        "result": read(printed),
    }  # fmt: skip
    partial = out / f".{part.name}.json"
    partial.write_text(json.dumps(record, indent=2))
    partial.rename(out / f"{part.name}.json")
    return status


def read(printed: bytes) -> object:
    """A JSON document, or the end of a text."""
    text = printed.decode(errors="replace")
    try:
        return json.loads(text)
    except ValueError:
        return text.splitlines()[-40:]


if __name__ == "__main__":
    sys.exit(main())
