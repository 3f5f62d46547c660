"""Document: an answer as text for the terminal, as JSON, and as one HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glideslope.report import page
from glideslope.report.page import Section
from glideslope.report.tables import Table


@dataclass(frozen=True)
class Document:
    """What a study says.

    Args:
        title: heading.
        lead: one paragraph under it.
        sections: text, tables and figures, in order.
        data: everything in it as plain data for strict JSON.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    data: Mapping[str, Any]

    def to_text(self) -> str:
        """Paragraphs and tables; figures are left to the page."""
        parts = [self.title, self.lead]
        for section in self.sections:
            blocks = [block for block in section.blocks if isinstance(block, (str, Table))]
            texts = [block if isinstance(block, str) else block.to_text() for block in blocks]
            parts += [f"== {section.title} ==", *texts] if texts else []
        return "\n\n".join(part for part in parts if part)

    def to_json(self) -> str:
        return json.dumps(self.data, indent=2, allow_nan=False)

    def write_html(self, path: Path) -> None:
        page.write(path, self.title, self.lead, self.sections)
