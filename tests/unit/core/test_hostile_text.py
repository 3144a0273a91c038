"""Names that strangers choose: models, labels, templates. Pages, cards and terminals show them as text and obey none."""

from __future__ import annotations

import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

import pruning_core
from coppice import console
from pruning_core.artifacts.card import base_licence, model_card
from pruning_core.artifacts.page import render_page
from pruning_core.data.chats import encode_chat
from pruning_core.data.rows import Rows
from pruning_core.errors import DatasetInvalid
from pruning_core.report.report import Report
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.chats import rendered
from tests import tiny
from tests.unit.app.sample import REPORT

HTML = "<script>alert(1)</script><img src=x onerror=alert(1)>"
MARKDOWN = "a\n\n# b [c](javascript:alert(1)) ![d](https://evil.example/x.png) `e` | f"
MARKUP = r"[red]a[/red] [link=https://evil.example]b[/link] \[bold]c\\[/bold]"
ANSI = "a\x1b]0;title\x07\x1b[2Jb\x9b31mc\u202ed\rX"
HOSTILE = {"html": HTML, "markdown": MARKDOWN, "markup": MARKUP, "ansi": ANSI}


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.headings = 0

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.headings += tag in ("h1", "h2")
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)


def report_with(text: str) -> Report:
    quality = REPORT["quality"] | {"details": {text: 0.5}}
    return Report.model_validate(REPORT | {"model": f"/models/{text}", "task": text, "warnings": [text], "quality": quality})


def spec_with(text: str) -> PruneSpec:
    return PruneSpec.model_validate({"model": "/models/name", "task": "glue/sst2", "sparsity": 0.5}).but(
        model=f"/models/{text}"
    )


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_the_page_shows_them_as_text(text):
    page = render_page(spec_with(text), report_with(text))
    tags = _Tags()
    tags.feed(page)
    assert not tags.tags & {"script", "img", "iframe", "object"}
    assert tags.handlers == []


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_the_card_shows_them_as_text(text):
    card = model_card(spec_with(text), report_with(text).but(task="glue/sst2"))
    tags = _Tags()
    tags.feed(MarkdownIt("commonmark").enable("table").render(card.split("---", 2)[2]))
    assert not tags.tags & {"script", "img", "a"}
    assert tags.headings == 3  # title, what is worth knowing, how to load it
    assert "\x1b" not in card


@pytest.mark.parametrize("licence", ["mit`<img src=x>", "a\n# b", "[a](b)", "x" * 101])
def test_a_licence_that_is_more_than_a_name_is_not_quoted(licence, tmp_path):
    (tmp_path / "README.md").write_text(f"---\nlicense: {json.dumps(licence)}\n---\n")
    assert base_licence(tmp_path) is None


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_the_terminal_shows_them_as_text(text, monkeypatch):
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=400, color_system="standard", legacy_windows=False)
    monkeypatch.setattr(console, "out", terminal)
    monkeypatch.setattr(console, "err", terminal)
    console.show(report_with(text))
    console.note(text)
    found = shown.getvalue()
    for obeyed in ("\x1b]", "\x1b[2J", "\x9b", "\u202e", "\x07", "\x1b[31m", "]8;"):
        assert obeyed not in found, repr(obeyed)
    if text == MARKUP:
        assert text in found


@pytest.mark.long
def test_names_of_labels_and_templates_of_a_model_are_never_run(tiny_bert, tiny_sst2, tmp_path):
    model = shutil.copytree(tiny_bert, tmp_path / "model")
    template = "{% for i in range(10 ** 12) %}{% for j in range(10 ** 12) %}x{% endfor %}{% endfor %}{{ 7777 * 7 }}"
    (model / "chat_template.jinja").write_text(template)
    for name, entries in {
        "config.json": {"id2label": {"0": HTML, "1": "{{ 7777 * 7 }}" + MARKUP}, "label2id": {HTML: 0, "x": 1}},
        "tokenizer_config.json": {"chat_template": template},
    }.items():
        path = model / name
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    report = run(tiny.tiny_spec(model, tiny_sst2), tmp_path / "out", device="cpu")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == template  # kept as it was, for those who want it
    page = (tmp_path / "out" / "report.html").read_text()
    card = (tmp_path / "out" / "README.md").read_text()
    # The report quotes the names of classes, as the data that JSON is; what people look at does not hold them as markup.
    assert HTML in report.model_dump_json() or json.dumps(HTML)[1:-1] in report.model_dump_json()
    for text in (page, card, report.model_dump_json()):
        assert "54439" not in text
    for text in (page, card):
        assert "<script>alert(1)" not in text


def test_chat_templates_are_rendered_in_one_place_alone():
    root = Path(pruning_core.__file__).parents[1]
    others = ("check_chat_template(", "llama_model_chat_template(")  # of the words alone: they render nothing
    for room in ("pruning_core", "app", "worker", "coppice"):
        for path in (root / room).rglob("*.py"):
            is_place = path.relative_to(root).as_posix() == "pruning_core/tasks/chats.py"
            code = path.read_text(encoding="utf-8")
            for name in others:
                code = code.replace(name, "")
            assert ("chat_template(" in code) == is_place, path


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('touch canary') }}",
        "{% set _ = messages.append({'role': 'user'}) %}",
    ],
)
def test_a_chat_template_reaches_nothing_but_the_chat(template, tiny_bert, tmp_path, monkeypatch):
    """transformers renders it by Jinja's sandbox, in which nothing of Python's can be reached and no value be changed."""
    from transformers import AutoTokenizer

    monkeypatch.chdir(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.chat_template = template
    chat = encode_chat([{"role": "user", "content": "hello"}], "messages")
    with pytest.raises(DatasetInvalid, match="refuses all chats"):
        rendered(tokenizer, Rows(((chat,),), None, form="chat"))
    assert not list(tmp_path.iterdir())
