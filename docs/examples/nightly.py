"""A nightly pipeline: the job of a night is made once, whoever asks how often, and its bundle goes on only under a condition.

nightly.py URL MODEL DATA NIGHT OUT      MODEL, DATA: folders on the service's host; NIGHT: such as 2026-11-29
"""

import sys

from coppice import Client, JobUnsuccessful

url, model, data, night, out = sys.argv[1:]
with Client(url) as client:  # COPPICE_API_KEY, where the service wants a key
    job = client.prune(
        model,
        "glue/sst2",
        data=data,
        sparsity=0.3,
        metadata={"pipeline": "nightly", "night": night},
        job_id=f"nightly-{night}",  # started again after a crash, the pipeline finds the job that it had begun
    )
    try:
        job.wait()
    except JobUnsuccessful as error:
        sys.exit(f"{error}")
    report = job.report()
    worse = report.quality.worse  # the ends of the 95 % interval of how much worse it is
    if worse is not None and worse[0] > 0.05:
        print(f"surely worse, by {worse[0]:.3f} at least: the bundle of {night} goes no further")
        sys.exit(4)
    job.download(out)
    print(
        f"{job.id}: {report.quality.metric} {report.quality.pruned:.3f}, {report.latency_ms.speedup:.2f} times as fast: {out}"
    )
