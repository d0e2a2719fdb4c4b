"""Java: the two programs of pycocoevalcap that need it, PTB's tokenizer and METEOR; neither outlives its use.

Both are asked over their standard input and answer on their standard output. Each is the leader of a process group,
which is killed when its use ends, however it ends, and when its time is up.
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
from types import TracebackType
from typing import IO, Any

from pycocoevalcap.meteor import meteor
from pycocoevalcap.tokenizer import ptbtokenizer

from schemas.errors import CaptError

# METEOR reads its table of paraphrases first, which takes 3 s at best and ten times that on a busy machine.
START_SECONDS = 120.0
SECONDS_A_TEXT = 0.05

_TOKENIZE = (
    "-cp",
    ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR,
    "edu.stanford.nlp.process.PTBTokenizer",
    "-preserveLines",
    "-lowerCase",
)
_METEOR = ("-Xmx2G", "-jar", meteor.METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm")
_SEPARATOR = "|||"


class JavaError(CaptError):
    """Java is missing, or one of its programs died or did not answer in time."""


def tokenize(texts: Sequence[str]) -> list[str]:
    """Texts as PTB's tokenizer has them: lower case, words joined by spaces, without punctuation.

    Args:
        texts: sequence of str. Each of one line: no line ends of any kind.

    Raises:
        JavaError: there is no answer, or not one line a text.
    """
    place = Path(ptbtokenizer.__file__).parent
    with _Program(_TOKENIZE, place) as program, program.within(START_SECONDS + SECONDS_A_TEXT * len(texts)):
        answer, _ = program.process.communicate("".join(f"{text}\n" for text in texts).encode())
        lines = answer.decode().split("\n")
        if program.process.returncode or len(lines) != len(texts) + 1:
            raise ValueError("no line a text")
    return [" ".join(word for word in line.split() if word not in ptbtokenizer.PUNCTUATIONS) for line in lines[:-1]]


class Meteor(meteor.Meteor):  # type: ignore[misc]
    """METEOR 1.5 (Denkowski and Lavie, 2014), as pycocoevalcap asks it; a context, which ends its process.

    Raises:
        JavaError: there is no Java.
    """

    def __init__(self) -> None:
        self._program = _Program(_METEOR, Path(meteor.__file__).parent)

    def __del__(self) -> None:
        """Nothing: the base class would wait for its lock, which an error leaves taken."""

    def __enter__(self) -> "Meteor":
        self.meteor_p = self._program.__enter__().process
        return self

    def __exit__(self, *error: Any) -> None:
        self._program.__exit__(*error)

    def compute_score(
        self, gts: Mapping[Any, Sequence[str]], res: Mapping[Any, Sequence[str]]
    ) -> tuple[float, list[float]]:
        """The score of all texts together, and of each.

        Args:
            gts: mapping. The references of each image, tokenized.
            res: mapping. A list of the one hypothesis of each image, tokenized, by the same ids in the same order.

        Raises:
            JavaError: METEOR died, answers nonsense, or did not answer in time.
        """
        self.lock = threading.Lock()
        clean = {name: [text.replace(_SEPARATOR, " ") for text in texts] for name, texts in gts.items()}
        with self._program.within(START_SECONDS + SECONDS_A_TEXT * sum(map(len, gts.values()))):
            score, scores = super().compute_score(clean, res)
        return score, scores


class _Program:
    """A Java program; a context, at the end of which it and all that it started are killed.

    Args:
        arguments: sequence of str. What follows `java`.
        place: Path. The directory it runs in.
    """

    def __init__(self, arguments: Sequence[str], place: Path) -> None:
        java = shutil.which("java")
        if java is None:
            raise JavaError("there is no java on the path", hint="install a Java runtime, 8 or later")
        self._command = [java, *arguments]
        self._place = place

    def __enter__(self) -> "_Program":
        self._errors: IO[bytes] = tempfile.TemporaryFile()
        try:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._place,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            raise JavaError(f"java does not start: {error.strerror}", location=self._command[0]) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            # What was not yet written to it is lost with the process.
            with suppress(OSError):
                pipe and pipe.close()
        self._errors.close()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Within the block, the program is killed after so long, and a broken conversation is a JavaError."""
        late = threading.Event()
        timer = threading.Timer(seconds, lambda: (late.set(), self._kill()))
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, ValueError) as error:
            self._kill()
            raise JavaError(self._complaint(late.is_set(), seconds), location=self._command[0]) from error
        finally:
            timer.cancel()

    def _kill(self) -> None:
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def _complaint(self, late: bool, seconds: float) -> str:
        if late:
            return f"java did not answer within {seconds:.0f} s"
        status = self.process.wait()
        self._errors.seek(0)
        said = " ".join(self._errors.read().decode(errors="replace").split())[:300]
        ended = "java answers nonsense" if status == -signal.SIGKILL else f"java ended with status {status}"
        return f"{ended}: {said}" if said else ended
