"""The daemon as shipped, which also says how many of its claims came back empty.

`python -m benchmarks.counted_run run` writes them at its end, as JSON, to the file that the
environment names. Nothing else tells: an empty claim leaves no trace in the database's statistics.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from refresher import cli
from refresher.domain.model import Claim
from refresher.postgres.claims import Claims

#: The variable that names it.
CLAIMS_FILE: Final = "BENCHMARK_CLAIMS_FILE"

counts: Counter[str] = Counter()
_claim = Claims.claim


async def _counted_claim(claims: Claims, chunk_budget: int) -> Sequence[Claim]:
    claimed = await _claim(claims, chunk_budget)
    counts["claims"] += 1
    counts["empty"] += not claimed
    return claimed


def main() -> None:
    Claims.claim = _counted_claim  # type: ignore[assignment, method-assign]
    try:
        cli.main()
    finally:
        Path(os.environ[CLAIMS_FILE]).write_text(json.dumps(counts))


if __name__ == "__main__":
    main()
