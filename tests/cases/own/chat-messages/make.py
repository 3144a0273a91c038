"""See README.md."""

from tiny import MODEL, decoder, jsonl

decoder()
(MODEL / "chat_template.jinja").write_text('{% for m in messages %}{{ m["content"] }} {% endfor %}')


def turn(text):
    return [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]


jsonl(change=lambda row: {"messages": turn(row["text"])})
