"""``make bench``: every benchmark, one after another; figures go to the terminal and to benchmarks/results/."""

from benchmarks import fetching, inspection, pipeline, recovery, streams, upload
from benchmarks.measure import machine

print("machine:", ", ".join(f"{name} {value}" for name, value in machine().items()))
pipeline.main()
recovery.main()
upload.main()
streams.main()
inspection.main()
fetching.main()
