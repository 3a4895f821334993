"""The inline executor keeps to the contract."""

from kernelevolve.executors import Executor
from kernelevolve.testing.executor_contract import ExecutorContract
from kernelevolve.testing.inline import InlineExecutor


class TestInline(ExecutorContract):
    @staticmethod
    def make() -> Executor:
        return InlineExecutor()
