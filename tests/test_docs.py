"""What README, docs, model card and configs name is there: paths, modules, commands, options."""

import re
import shlex
from itertools import chain, pairwise
from pathlib import Path

import pytest
import typer.main
import yaml

from amg.cli import app
from amg.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
    ROOT / "amg/models/weights/README.md",
]
CLUSTER = sorted((ROOT / "configs/cluster").iterdir())
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))
DOCUMENTS = [*PAGES, *CLUSTER, *CONFIGS, *NOTEBOOKS]

_OURS = ("amg", "benchmarks", "configs", "docs", "pipelines", "tests")
# Not `~/amg/bin` or `/shared/venvs/amg`: virtual environments.
_PATH = re.compile(rf"(?<![\w./~-])(?:{'|'.join(_OURS)})/(?!bin\b)[\w./+-]*")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_BESIDE = re.compile(r"`(\w+\.py)`")
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")
_MODULE = re.compile(r"python3? -m ([\w.]+)")
# Begins a line, code or a column, or comes after another command: elsewhere `amg` is a word.
_COMMAND = re.compile(r"(?:^|`|  |/bin/|[;&|(] ?)amg\s+(?:# )?([a-z][a-z-]*)", re.MULTILINE)
_TARGET = re.compile(r"(?<![\w./-])make ([a-z][a-z-]*)")
_SEPARATORS = re.compile(r"&&|\|\||[;|]|\bdo\b")

COMMANDS = {
    name: {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    for name, command in typer.main.get_command(app).commands.items()
}
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def _snippets(path):
    """The code in a document, comments included."""
    text = path.read_text()
    if path.suffix == ".md":
        return [
            *(code for language, code in _FENCED.findall(text) if language != "python"),
            *_INLINE.findall(_FENCED.sub("", text)),
        ]
    if path.suffix == ".yaml":
        return [text, *_strings(yaml.safe_load(text))]
    return [text] if path.suffix != ".ipynb" else []


def _strings(value):
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return list(chain.from_iterable(map(_strings, parts)))


def _calls(path):
    """The calls of `amg` in a document, as lists of words after the name."""
    for snippet in _snippets(path):
        for line in snippet.replace("\\\n", " ").splitlines():
            for part in _SEPARATORS.split(line):
                try:
                    words = shlex.split(part, comments=True)
                except ValueError:  # a quotation mark that another line closes, or half a command
                    words = part.split()
                while words and "=" in words[0] and not words[0].startswith("-"):
                    words = words[1:]  # a variable for this call
                if len(words) > 1 and words[0].rpartition("/")[2] == "amg":
                    yield words[1:]


def _name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_paths_exist(path):
    named = (match.rstrip(".") for match in _PATH.findall(path.read_text()))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_links_lead_somewhere(path):
    text = path.read_text()
    links = [link for link in _LINK.findall(text) if "://" not in link] + _BESIDE.findall(text)
    missing = [link for link in links if not (path.parent / link.partition("#")[0]).exists()]
    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_modules_commands_and_targets_exist(path):
    snippets = _snippets(path)
    modules = {name for snippet in snippets for name in _MODULE.findall(snippet)}
    ours = {name for name in modules if name.partition(".")[0] in _OURS}
    places = {name: ROOT / name.replace(".", "/") for name in ours}
    missing = [
        name
        for name, place in places.items()
        if not (place.with_suffix(".py").is_file() or (place / "__main__.py").is_file())
    ]
    assert missing == []
    named = {name for snippet in snippets for name in _COMMAND.findall(snippet)}
    assert named - COMMANDS.keys() == set()
    targets = {name for snippet in snippets for name in _TARGET.findall(snippet)}
    assert targets - TARGETS == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_options_exist(path):
    for command, *words in _calls(path):
        options = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert options - COMMANDS.get(command, options) == set(), command
        settings = [value for key, value in pairwise(words) if key == "--set"]
        load_config(None, settings)  # raises ConfigError for keys and values that there are not


@pytest.mark.parametrize("path", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")], ids=_name)
def test_options_named_alone_are_of_some_command(path):
    snippets = [snippet for snippet in _snippets(path) if snippet.startswith("--")]
    options = {snippet.split()[0] for snippet in snippets}
    assert options - set().union(*COMMANDS.values()) == set()


def test_there_is_something_to_check():
    assert len(PAGES) > 5
    assert len(CLUSTER) > 4
    calls = [call for path in DOCUMENTS for call in _calls(path)]
    assert {call[0] for call in calls} >= {"run", "refilter", "eval", "export", "status"}
    assert sum(word.startswith("--") for call in calls for word in call) > 30
