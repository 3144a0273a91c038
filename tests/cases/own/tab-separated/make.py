"""See README.md."""

from tiny import DATA, classifier, rows

classifier()
DATA.mkdir()
for number, split in enumerate(("train", "validation")):
    lines = ["text\tlabel", *(f"{row['text']}\t{row['label']}" for row in rows(40, number))]
    (DATA / f"{split}.tsv").write_text("\n".join(lines) + "\n")
