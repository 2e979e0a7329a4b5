"""Out of memory, in words: in which phase, how much was needed, and what would help."""

import re

import torch

LOADING = ("loading", "a higher --zero stage over more ranks, or lora_rank")
ADVICE = (
    ("rollout", "a smaller generation_batch_size, or a shorter max_response_tokens"),
    ("scoring", "a smaller score_batch_size"),
    ("training", "a smaller micro_batch_size, gradient_checkpointing, or reuse_scoring false"),
    ("evaluation", "a smaller eval_batch_size or generation_batch_size"),
    ("sampling", "a smaller generation_batch_size, or a shorter max_response_tokens"),
    ("step", "a smaller micro_batch_size, or gradient_checkpointing"),
)
"""A word of a place (see `Watchdog.at`) -> the settings that lower what that phase takes."""

ALWAYS = "--zero 3 on more ranks, --offload_optimizer cpu, --offload_parameters cpu or lora_rank"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, of a card or of the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )


def memory_message(error: BaseException, place: str) -> str:
    """What ran out, where, how much more was asked for, and which settings lower the need.

    Args:
        place: what was going on, as the watchdog knows it.
    """
    text = str(error)
    wanted = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", text)
    asked = f"; it asked for {wanted[1]} more" if wanted else ""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        where = f"the card's memory ({free / 2**30:.1f} of {total / 2**30:.1f} GiB free)"
    else:
        import psutil

        memory = psutil.virtual_memory()
        where = (
            f"the machine's memory ({memory.available / 2**30:.1f} of "
            f"{memory.total / 2**30:.1f} GiB free)"
        )
    loading = place.startswith(LOADING[0])  # a folder's name may have any of the words in it
    advice = [LOADING] if loading else ADVICE
    helps = next((text for word, text in advice if word in place), "smaller batches")
    return (
        f"out of memory at {place}: {where} is not enough{asked}. Set {helps}: the same command "
        "with that, and with --allow_changes and the setting's name, goes on from the last "
        f"checkpoint. In a new run {ALWAYS} would help, too"
    )
