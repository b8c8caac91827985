"""`make bench`: measures the service and says whether it keeps its bounds.

python -m tests.load.bench [rest] [state] [latency] [dispatch] [queue]
    [stores] [workflows] [replicas] [crowded] [recovery] [writes]
"""

import platform
import sys

from tests.compiled_code import compiled_code_kept
from tests.load import many_writes, measures, storage_measures
from tests.load.figures import Figure

MEASURES = measures.MEASURES | storage_measures.MEASURES | many_writes.MEASURES


def main(names: list[str]) -> int:
    figures: list[Figure] = []
    with compiled_code_kept():
        for name in names or list(MEASURES):
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            figures += MEASURES[name]()
    print(f"Python {platform.python_version()}, {platform.machine()}\n")
    print("| what | measured | bound | kept | |\n| --- | --- | --- | --- | --- |")
    for figure in figures:
        kept = "yes" if figure.kept else "**no**"
        value = f"{figure.value:.2f} {figure.unit}"
        print(f"| {figure.name} | {value} | {figure.bound} | {kept} | {figure.note} |")
    return 0 if all(figure.kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
