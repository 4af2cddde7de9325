"""The subcommands `push` and `results push`: upload to the model hub, or show what would be uploaded."""

from pathlib import Path

from harness.escape import visible, visible_lines
from harness.sharing.upload import CARD, Upload, send


def push_text(upload: Upload, private: bool, dry_run: bool) -> str:
    """Upload, and return what was uploaded, as text in Markdown.

    Args:
        upload: what to upload.
        private: whether only its owner may see the repository.
        dry_run: upload nothing; the text is then what would be uploaded, with the card.

    Raises:
        UserError: see `harness.sharing.upload.send`.
    """
    files = "\n".join(f"- {visible(line)}" for line in upload.listing())
    if dry_run:
        card = upload.files[CARD]
        assert not isinstance(card, Path), "a card is made, not read"
        whose = "private" if private else "public"
        head = f"Nothing was uploaded. Without --dry-run, these files go to the {whose} repository {upload.address}:"
        return f"{head}\n\n{files}\n\nIts card, {CARD}:\n\n{visible_lines(card.decode())}"
    return f"Uploaded to {upload.address} ({send(upload, private)}):\n\n{files}"
