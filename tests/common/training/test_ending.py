"""What the end of a stage's process says, and with which code."""

from common.errors import UserError
from common.training.ending import is_consequence, message_of


def test_errors_in_words():
    assert message_of(UserError("do this")) == ("do this", 2)
    text, code = message_of(OSError(28, "No space left on device", "model.safetensors"))
    assert code == 2 and "the disk is full" in text and "model.safetensors" in text
    text, code = message_of(RuntimeError("you tried to allocate 40 bytes: can't allocate memory"))
    assert code == 2 and "out of memory" in text and "40 bytes" in text
    text, code = message_of(KeyError("x"))
    assert code == 1 and text.startswith("KeyError at ")


def test_what_follows_from_another_ranks_end_is_told_from_causes():
    assert is_consequence(RuntimeError("[/gloo/pair.cc:525] Connection closed by peer [::1]:2"))
    assert not is_consequence(RuntimeError("shape mismatch"))
    assert not is_consequence(UserError("Connection closed by peer"))
