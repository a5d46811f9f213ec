"""A picture in SVG, built from lines, boxes and texts. It does not depend on what the picture shows."""

from __future__ import annotations

from html import escape

_STYLE = """text{font:11px system-ui,sans-serif;fill:#222}
.small{font-size:9px}.dim{fill:#777}.host{font-weight:600;font-size:12px}
.deed{fill:#a01c1c;font-size:10px}.title{font-size:13px;font-weight:600}"""


class Canvas:
    """A canvas. Lengths are pixels, from the upper left corner; later elements are drawn above earlier ones."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def page(self, width: int, height: int) -> str:
        """Return all elements as the text of a file."""
        body = "\n".join(self.parts)
        size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{_STYLE}</style>\n'
            f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
        )

    def line(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        *,
        stroke: str,
        width: float = 1,
        dash: str = "",
        title: str = "",
    ) -> None:
        """Draw a straight line; `title` is its tooltip."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        inside = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" '
            f'stroke-width="{width:g}"{dashes}' + (f">{inside}</line>" if inside else "/>")
        )

    def rect(
        self, x: float, y: float, width: float, height: float, fill: str, *, opacity: float = 1, title: str = ""
    ) -> None:
        """Draw a filled box; `title` is its tooltip."""
        inside = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}" '
            f'fill-opacity="{opacity:g}"' + (f">{inside}</rect>" if inside else "/>")
        )

    def text(self, x: float, y: float, text: str, style: str, *, anchor: str = "start") -> None:
        """Draw a text; `style` names classes of the style sheet."""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(text)}</text>')
