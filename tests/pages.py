"""Reading a page as a browser would: tags, text, tables; and that every tag is closed."""

from html.parser import HTMLParser

VOID = ("meta", "img", "!doctype", "br")


class Reader(HTMLParser):
    """A page's tags, the links in it, its text outside scripts, and its tables by caption."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.open, self.text = [], [], [], ""
        self.headings, self.ids, self.styled = [], [], []
        self.tables, self._caption, self._rows = {}, "", []
        self.feed(text)
        self.close()
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "action", "data", "xlink:href")]
        self.ids += [v for k, v in attrs if k == "id"]
        self.styled += [v for k, v in attrs if k == "style"]
        assert not any(k.startswith("on") for k, _ in attrs), "no inline event handlers"
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):  # circles and lines of a drawing
        self.tags.append(tag)
        assert not any(k.startswith("on") for k, _ in attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            assert self._caption, "every table has a caption"
            self.tables[self._caption] = self._rows
            assert len({len(row) for row in self._rows}) == 1, "every row is as wide as the others"

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            return
        self.text += data
        if "caption" in self.open:
            self._caption += data
        elif "table" in self.open and {"td", "th"} & set(self.open):
            self._rows[-1][-1] += data
        elif {"h1", "h2"} & set(self.open):
            self.headings.append(data)

    def table(self, *words):
        """The rows of the one table whose caption has all of these words."""
        (found,) = [r for c, r in self.tables.items() if all(word in c for word in words)]
        return found

    def row(self, caption, *starts):
        """The one row of a table that starts with these."""
        (found,) = [r for r in self.table(caption) if r[: len(starts)] == list(starts)]
        return found
