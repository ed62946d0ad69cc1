"""Video IDs that a spreadsheet has rounded."""

from dataclasses import dataclass, field
from pathlib import Path

from refresher.csv_files.complaints import Doubts
from refresher.domain.spreadsheet import Rounding, rounding


@dataclass(slots=True)
class Rounded:
    """Counts IDs that a spreadsheet or a float seems to have rounded, by how they end."""

    rows: int = 0
    #: How many, the line of the first one, and the first one.
    found: dict[Rounding, tuple[int, int, str]] = field(default_factory=dict)

    def look(self, line: int, cell: str, video_id: str) -> None:
        self.rows += 1
        if video_id[-1] != "0" and cell == video_id:  # nearly all IDs
            return
        kind = rounding(cell, video_id)
        if kind is not None:
            count, first_line, first = self.found.get(kind, (0, line, video_id))
            self.found[kind] = (count + 1, first_line, first)

    def tell(self, path: Path, doubts: Doubts) -> None:
        told = [seen for kind, seen in self.found.items() if seen[0] * kind.by_chance > self.rows]
        if told:
            line, video_id = min((line, video_id) for _, line, video_id in told)
            doubts.about(
                path,
                line,
                f"video_id: {video_id} looks rounded by a spreadsheet "
                f"({sum(count for count, _, _ in told)} in all): format the column as text and "
                "export it again",
            )
