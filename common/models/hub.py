"""The Hugging Face hub: uploading a finished model folder, and which commit a model is of."""

from pathlib import Path


def push(folder: Path, name: str, *, private: bool) -> str:
    """Uploads a model folder with its card; a failure is told, and costs nothing.

    Args:
        name: of the repository, `owner/name`; it is made where there is none. The token is the one
            that `hf auth login` or HF_TOKEN gave.

    Returns:
        a line for the terminal: where it lies now, or why it does not and what to do.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name, folder_path=folder, commit_message=f"{folder.name}, by the RLHF pipeline"
        )
    except Exception as error:  # network, token, quota: the model is safe on this disk
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return (
            f"{folder} was not pushed to {name}: {reason}. It is whole on this disk; to push it: "
            f"hf upload {name} {folder}"
        )
    return f"{folder} pushed to {getattr(commit, 'commit_url', name)}"


def hub_commit(name: str) -> str:
    """The commit that a hub model was loaded at, as the local cache has it, or "unknown"."""
    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "adapter_config.json"):
        cached = try_to_load_from_cache(name, file)
        if isinstance(cached, str):
            return Path(cached).parent.name  # …/snapshots/COMMIT/config.json
    return "unknown"
