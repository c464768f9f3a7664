"""Entry point of the command line: every failure becomes one line on stderr and an exit code."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from specmd.errors import Exit, SpecmdError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (see `specmd.errors.Exit`)."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    if sys.stdout is None:
        return _say("error: standard output is closed; send it to a file or /dev/null", Exit.USAGE)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows ASCII only
    log = logging.getLogger("specmd")
    if not log.handlers:  # what is waited for, and what went wrong on the way
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("specmd: %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        return _run(argv)
    except BrokenPipeError:
        return _reader_left()
    except (
        SystemExit
    ) as exiting:  # what typer makes of a closed pipe; it exits in no other way here
        if isinstance(exiting.__context__, BrokenPipeError):
            return _reader_left()
        raise


def _reader_left() -> Exit:
    """Keep quiet: whoever reads stdout (`head`, a pager) has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    return Exit.OK


def _run(argv: Sequence[str] | None) -> int:
    from typer import Abort

    from specmd.cli.program import command

    try:
        given = list(sys.argv[1:] if argv is None else argv)
        code = command()(args=given or ["--help"], prog_name="specmd", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, Abort):
        return _say("interrupted", Exit.INTERRUPTED)
    except SpecmdError as error:
        return _say(f"error: {error}", error.code, error)
    except OSError as error:
        if error.filename is None and sys.stdout is sys.__stdout__:
            _reader_left()  # what is still to be written would fail again
        place = error.filename or "standard output"
        return _say(f"error: {place}: {error.strerror or error}", Exit.NOT_WRITTEN, error)
    except Exception as error:
        if hasattr(error, "format_message"):  # what typer raises about the command line itself
            reason = error.format_message().replace("Value error, ", "")
            return _say(f"error: {reason}{_help_hint(error)}", Exit.USAGE)
        return _say(
            f"internal error: {type(error).__name__}: {error} "
            "(SPECMD_DEBUG=1 shows the traceback; please report it with `specmd env`)",
            Exit.RUN_FAILED,
            error,
        )
    return code if isinstance(code, int) else Exit.OK


def _help_hint(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f" (see '{context.command_path} --help')" if context is not None else ""


def _say(message: str, code: Exit, error: BaseException | None = None) -> Exit:
    if error is not None and os.environ.get("SPECMD_DEBUG"):
        import traceback

        traceback.print_exception(error)
    sys.stderr.write(f"specmd: {' '.join(message.split())}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
