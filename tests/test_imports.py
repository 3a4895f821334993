import subprocess
import sys

import pytest

LAZY = ("torch", "triton", "tvm_ffi", "optuna", "scipy", "openai", "anthropic", "httpx2", "mcp")


@pytest.mark.parametrize("arguments", [["--help"], ["targets", "list"], ["runs", "list"]])
def test_the_command_line_starts_without_the_heavy_libraries(arguments, tmp_path):
    code = (
        "import sys\n"
        "from kernelevolve.cli.app import main\n"
        f"sys.argv = ['kernelevolve', *{arguments!r}]\n"
        "assert main() == 0\n"
        f"sys.exit(' '.join(m for m in {LAZY!r} if m in sys.modules) or 0)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "module", ["kernelevolve", "kernelevolve.hardware", "kernelevolve.settings", "kernelevolve.schema"]
)
def test_these_modules_need_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
