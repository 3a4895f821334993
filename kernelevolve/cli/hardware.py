"""The commands `hardware ...`: what kernels can run on here, and its limits."""

import typer

from kernelevolve import hardware, settings
from kernelevolve.cli import output
from kernelevolve.cli.options import AsJson, HardwareKey, SettingsFile, Threads
from kernelevolve.schema import Hardware

app = typer.Typer(help="What kernels can run on here.", invoke_without_command=True)


@app.callback()
def _default(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        show_all(as_json)


@app.command("list")
def show_all(as_json: AsJson = False) -> None:
    """List the devices of this machine, the default one first."""
    found = hardware.detect_all()
    if as_json:
        output.document(found)
        return
    output.table(
        ("KEY", "PRODUCT", "ARCHITECTURE", ">CORES", ">MEMORY", "FEATURES", "ALIASES"),
        [
            (
                h.key,
                h.product,
                h.architecture,
                str(h.cores),
                _gib(h),
                " ".join(h.features),
                " ".join(h.aliases),
            )
            for h in found
        ],
    )


@app.command()
def ceilings(
    hardware_key: HardwareKey = None,
    threads: Threads = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure the highest bandwidth and arithmetic rates of a device, or show those measured before."""
    chosen = settings.load(file, hardware=hardware_key, threads=threads)
    device = hardware.measured(chosen.hardware, chosen.threads, chosen.cache)
    measured = device.ceilings
    if as_json or measured is None:
        output.document(device)
        return
    with_threads = "" if device.device == "gpu" else f" {measured.threads} threads,"
    output.text(f"{device.key},{with_threads} measured {measured.measured_at}")
    output.table(
        ("WORKING SET", ">READ, GB/S"),
        [(_size(b.footprint_bytes), f"{b.gbps:.1f}") for b in measured.bandwidths],
    )
    output.table(
        ("ELEMENT TYPE", ">PEAK, GFLOP/S"),
        [(name, f"{rate:.1f}") for name, rate in measured.peak_gflops.items()],
    )
    if measured.fork_join_us is not None:
        output.text(f"an OpenMP parallel region that does nothing takes {measured.fork_join_us:.2g} us")


def _gib(device: Hardware) -> str:
    return f"{device.memory_bytes / 2**30:.1f} GiB"


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"
