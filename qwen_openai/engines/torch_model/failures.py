"""What went wrong inside a model, in a sentence that says what to do.

torch is looked up only where it has been imported: a model given by a library user may need none.
"""

import sys
from dataclasses import dataclass
from types import ModuleType

from qwen_openai.errors import StartupError


@dataclass(frozen=True, slots=True)
class Failure:
    """``sentence`` is for the client. ``memory``: cached blocks should be given back. ``broken``
    says why no further job can run in this process, where that is so."""

    sentence: str
    memory: bool = False
    broken: str | None = None


def explain(error: BaseException) -> Failure:
    """Say what an exception of a model's step means."""
    torch = _torch()
    if out_of_memory(error):
        return Failure(
            "The model ran out of memory while it answered; the server goes on. Send a shorter "
            "conversation or ask for fewer tokens; whoever runs the server can lower --context.",
            memory=True,
        )
    if torch and isinstance(error, _accelerator_error(torch)) and not _works(torch):
        broken = (
            "The accelerator failed and cannot be used again by this process "
            f"({_first_line(error)}). Restart the server."
        )
        return Failure(broken, broken=broken)
    return Failure(
        "The model failed while it answered; the server's log has the details. "
        "Send the request again."
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no memory left. On a CPU torch raises a plain
    RuntimeError, known by its text alone."""
    torch = _torch()
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def not_loaded(name: str, error: BaseException) -> StartupError:
    """Say why the model ``name`` did not load, whatever the libraries below raised."""
    if out_of_memory(error):
        return StartupError(
            f"The memory did not hold {name}, its weights and its cache: {error}.",
            fix="Free memory, lower --slots or --context, or take a smaller model or another"
            " --device-map.",
        )
    return StartupError(
        f"{name} could not be loaded: {type(error).__name__}: {error}.",
        fix="Check that its folder is complete: `qwen-openai pull` verifies it.",
    )


def empty_cache() -> None:
    """Give blocks that torch keeps for later back to the device."""
    torch = _torch()
    # A broken device refuses this too, and that has been said already.
    if torch is not None and torch.cuda.is_initialized() and _works(torch):
        torch.cuda.empty_cache()


def _torch() -> ModuleType | None:
    return sys.modules.get("torch")


def _accelerator_error(torch: ModuleType) -> type[Exception]:
    """torch 2.8 and later have a class of their own for what the driver reports."""
    return getattr(torch, "AcceleratorError", RuntimeError)


def _works(torch: ModuleType) -> bool:
    """Whether the devices still take work: a failure of the driver stays with the process."""
    try:
        for device in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
            torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]
