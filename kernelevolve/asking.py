"""Questions to models under way: several at once, each in a thread of its own."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from kernelevolve.llm.base import Client
from kernelevolve.runs import Runs
from kernelevolve.schema import Answer, ModelInfo, ModelRequest


class Switchboard:
    """A client for all models of a run: it puts a question to a service, or leaves it for whoever answers by file."""

    def __init__(self, models: Sequence[ModelInfo], runs: Runs, run: str, reply_seconds: float | None = None) -> None:
        """Reaches nobody yet. `reply_seconds`: how long a service may take.

        Raises `UsageError` where another process waits for answers by file to this run.
        """
        # Imported here: a run that asks nobody starts without the vendors' packages.
        from kernelevolve.llm.mailbox import Mailbox
        from kernelevolve.llm.service import Service

        self._models = models
        with_mailbox = any(model.protocol == "mailbox" for model in models)
        self._mailbox: Client | None = Mailbox(runs, run) if with_mailbox else None
        served = [model for model in models if model.protocol != "mailbox"]
        self._service: Client = Service(served, Service.Config.within(reply_seconds))

    def complete(self, request: ModelRequest) -> Answer:
        """See `Client`."""
        mailbox = self._mailbox if by_file(self._models, request) else None
        return (mailbox or self._service).complete(request)

    def close(self) -> None:
        """See `Client`."""
        if self._mailbox is not None:
            self._mailbox.close()
        self._service.close()


def greet(models: Sequence[ModelInfo]) -> None:
    """Have a word with the services of these models, at no cost.

    Raises `UsageError` where no question could be put to one: no key or a wrong one, nobody at its address.
    """
    served = [model for model in models if model.protocol != "mailbox"]
    if not served:
        return
    from kernelevolve.llm.service import Service

    service = Service(served)
    try:
        service.greet()
    finally:
        service.close()


class Lanes:
    """Puts questions to a client, so many at once."""

    def __init__(self, client: Client, lanes: int) -> None:
        self._client = client
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="question")

    def put(self, request: ModelRequest) -> Future[Answer]:
        """Ask. The future raises what the client raises."""
        return self._threads.submit(self._client.complete, request)

    def close(self) -> None:
        """Give up what is under way."""
        self._client.close()
        self._threads.shutdown(cancel_futures=True)


def by_file(models: Sequence[ModelInfo], request: ModelRequest) -> bool:
    """Whether a question goes to somebody who answers by file, and may take any time or never do so."""
    return any(model.name == request.model and model.protocol == "mailbox" for model in models)
