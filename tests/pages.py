"""HTML pages: what they show, and the browser that prints them."""

from __future__ import annotations

import html.parser
import shutil

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(html.parser.HTMLParser):
    """What a page shows: tags are balanced, texts, and the sources of pictures."""

    def __init__(self, path):
        super().__init__()
        self.stack, self.pictures, self.texts, self.tags = [], [], [], set()
        self.feed(path.read_text())
        assert self.stack == []
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in ("meta", "img", "br"):
            self.stack.append(tag)
        for name, value in attributes:
            assert name != "src" or value.startswith("data:image/jpeg;base64,")
            assert name != "href" or value.startswith("#")
        if tag == "img":
            self.pictures.append(dict(attributes)["alt"])

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] != "style":
            self.texts.append(data)
