"""A chat with the models of a run, on the terminal or on a page: `bash launch/chat.sh MODEL…`."""

import sys
from collections.abc import Sequence

from common.errors import UserError
from common.libraries import quiet_libraries


def main(arguments: Sequence[str]) -> int:
    """Loads the models and talks until the end of input, or serves until stopped.

    Returns:
        the exit code: 1 where something that came through a pipe could not be answered.

    Raises:
        UserError: settings or folders that are wrong.
    """
    from common.chat.session import Session
    from common.chat.settings import ChatArguments, ChatSampling
    from common.chat.speaker import load_all
    from common.chat.terminal import Terminal, encode_all
    from common.config.parsing import parse_arguments

    settings, sampling = parse_arguments((ChatArguments, ChatSampling), "chat", arguments)
    speakers, judge = load_all(settings)
    if settings.serve:
        from common.chat.server import serve_page

        serve_page(speakers, judge, sampling, settings)
        return 0
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        encode_all(stream)
    session = Session(speakers, judge, sampling, settings.system)
    return 0 if Terminal(session, sys.stdin, sys.stdout).run() else 1


if __name__ == "__main__":
    quiet_libraries()
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"chat: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before the chat began
        sys.exit(130)
