"""See README.md."""

import datetime as dt

import pyarrow as pa
import pyarrow.parquet as pq
from tiny import DATA, classifier, rows

classifier()
DATA.mkdir()
for number, split in enumerate(("train", "validation")):
    found = [row | {"text": dt.date(2024, 1, 1)} for row in rows(40, number)]
    pq.write_table(pa.Table.from_pylist(found), DATA / f"{split}.parquet")
