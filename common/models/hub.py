"""Uploading a finished model folder to the Hugging Face hub."""

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
