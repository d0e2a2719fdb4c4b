"""Runs the Java programs of pycocoevalcap: the PTB tokenizer and METEOR.

capt communicates with both over standard input and output. Each is the leader of a process group, which is killed after
use, after an error and after a time limit.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pycocoevalcap.meteor import meteor
from pycocoevalcap.tokenizer import ptbtokenizer

from schemas.errors import CaptError

# METEOR loads its paraphrase table first, which takes 3 s, and ten times as long on a busy machine.
START_SECONDS = 120.0
SECONDS_PER_TEXT = 0.05

_PTB_TOKENIZER = ("edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase")
_TOKENIZE = ("-cp", ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR, *_PTB_TOKENIZER)
_METEOR = ("-Xmx2G", "-jar", meteor.METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm")
_SEPARATOR = "|||"


class JavaError(CaptError):
    """Java is missing, or a program failed or exceeded its time limit."""


def tokenize(texts: Sequence[str]) -> list[str]:
    """Returns each text, which has no line end, as lowercase words without punctuation, joined by spaces.

    Raises:
        JavaError: The output does not have one line per text.
    """
    directory = Path(ptbtokenizer.__file__).parent
    with _Program(_TOKENIZE, directory) as program, program.within(START_SECONDS + SECONDS_PER_TEXT * len(texts)):
        answer, _ = program.process.communicate("".join(f"{text}\n" for text in texts).encode())
        lines = answer.decode().split("\n")
        if program.process.returncode or len(lines) != len(texts) + 1:
            raise ValueError("expected one line per text")
    return [" ".join(word for word in line.split() if word not in ptbtokenizer.PUNCTUATIONS) for line in lines[:-1]]


class Meteor(meteor.Meteor):
    """METEOR 1.5 (Denkowski and Lavie, 2014); a context manager that ends the process of pycocoevalcap's class.

    Raises:
        JavaError: Java is missing.
    """

    def __init__(self) -> None:
        self._program = _Program(_METEOR, Path(meteor.__file__).parent)

    def __del__(self) -> None:
        """Does nothing; the base class would wait for its lock, which stays locked after an error."""

    def __enter__(self) -> "Meteor":
        self.meteor_p = self._program.__enter__().process
        return self

    def __exit__(self, *error: Any) -> None:
        self._program.__exit__(*error)

    def compute_score(
        self, gts: Mapping[Any, Sequence[str]], res: Mapping[Any, Sequence[str]]
    ) -> tuple[float, list[float]]:
        """Computes the score over all images and per image, from tokens by image ID in the same order.

        Raises:
            JavaError: METEOR failed, its output is invalid, or it exceeded its time limit.
        """
        self.lock = threading.Lock()
        clean = {name: [text.replace(_SEPARATOR, " ") for text in texts] for name, texts in gts.items()}
        with self._program.within(START_SECONDS + SECONDS_PER_TEXT * sum(map(len, gts.values()))):
            score, scores = super().compute_score(clean, res)
        return score, scores


class _Program:
    """A Java program in a working directory; a context manager that kills the program and its child processes."""

    def __init__(self, arguments: Sequence[str], directory: Path) -> None:
        java = shutil.which("java")
        if java is None:
            raise JavaError("there is no java on the path", hint="Install Java 8 to 17.")
        self._command = [java, *arguments]
        self._directory = directory

    def __enter__(self) -> "_Program":
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        try:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise JavaError(f"java does not start: {error.strerror}", location=self._command[0]) from None
        return self

    def __exit__(self, *error: Any) -> None:
        self._kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            # Unwritten input is lost with the process.
            with suppress(OSError):
                pipe and pipe.close()
        self._errors.close()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Kills the program after this time, and raises JavaError if the communication fails."""
        is_late = threading.Event()

        def stop() -> None:
            is_late.set()
            self._kill()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, ValueError) as error:
            self._kill()
            raise JavaError(self._describe_failure(is_late.is_set(), seconds), location=self._command[0]) from error
        finally:
            timer.cancel()

    def _kill(self) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def _describe_failure(self, is_late: bool, seconds: float) -> str:
        if is_late:
            return f"java did not answer within {seconds:.0f} s"
        status = self.process.wait()
        failure = (
            "the output of java is invalid" if status == -signal.SIGKILL else f"java ended with exit code {status}"
        )
        self._errors.seek(0)
        output = " ".join(self._errors.read().decode(errors="replace").split())[:300]
        return f"{failure}: {output}" if output else failure
