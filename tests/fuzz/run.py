"""Coverage-guided fuzzing by atheris: ``python tests/fuzz/run.py SECONDS [TARGET...]``, by default every target.

It begins with tests/fuzz/corpus, and keeps what it finds in .fuzz. An input that crashes a target lands there too:
put it into the corpus, under a name that says what it is, and ``make test`` replays it for ever.
"""

import pathlib
import subprocess
import sys

import atheris

HERE = pathlib.Path(__file__).parent
FOUND = HERE.parent.parent / ".fuzz"
ONE = "--one"
MEGABYTES = 1024

with atheris.instrument_imports(include=["demail_hw"]):
    sys.path.insert(0, str(HERE))
    from targets import TARGETS


def fuzz(name: str, seconds: str) -> None:
    """One target, in this process, which ends with it."""
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    options = (
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEGABYTES}",
        "-max_len=4096",
        "-timeout=10",
        "-verbosity=1",
    )
    folders = (str(found), str(HERE / "corpus" / name))
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={FOUND}/{name}-", *folders], TARGETS[name])
    atheris.Fuzz()


def main(seconds: str, names: list[str]) -> int:
    """Each target in a process of its own; 1 if one of them crashed."""
    crashed = []
    for name in names or TARGETS:
        print(f"--- {name}", flush=True)
        command = (sys.executable, __file__, ONE, name, seconds)
        done = subprocess.run(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            crashed.append(name)
        told = done.stdout.splitlines() if done.returncode else done.stdout.splitlines()[-1:]
        print("\n".join(told), flush=True)
    print(f"crashed: {', '.join(crashed)}" if crashed else "nothing crashed")
    return bool(crashed)


if __name__ == "__main__":
    if sys.argv[1] == ONE:
        fuzz(*sys.argv[2:4])
    sys.exit(main(sys.argv[1], sys.argv[2:]))
